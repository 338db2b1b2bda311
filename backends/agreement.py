"""Whether outputs of compiled code are those of the model.

Compaction proves its result operator by operator. Between a model and machine code lie an importer and a compiler that are
not ours, so here a disagreement is looked for instead. The tolerance of a type leaves room for rounding, Winograd's too (1e-5
of the largest float32 value at worst), and not for an operator that was read wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .dtypes import DTYPES

__all__ = ["disagreement"]


def disagreement(
    expected: Sequence[Any],
    found: Sequence[Tensor],
    tolerance: float | None = None,
    *,
    slack: Sequence[float] | None = None,
) -> str | None:
    """What is wrong with outputs `found` in place of the `expected` ones, in words; None if nothing is.

    `tolerance` is that of each output's dtype unless it is given. `slack` is what each output may be off by in any case: an
    absolute difference, or a share of entries.
    """
    if len(expected) != len(found):
        return f"{len(found)} outputs instead of {len(expected)}"
    for number, (wanted, got) in enumerate(zip(expected, found, strict=True)):
        reason = _difference(torch.as_tensor(wanted), got, tolerance, slack[number] if slack else 0.0)
        if reason:
            return f"output {number}: {reason}"
    return None


def _difference(wanted: Tensor, got: Tensor, tolerance: float | None, slack: float) -> str | None:
    if (wanted.shape, wanted.dtype) != (got.shape, got.dtype):
        return f"{got.dtype} {tuple(got.shape)} instead of {wanted.dtype} {tuple(wanted.shape)}"
    if not wanted.numel():
        return None
    if tolerance is None:
        tolerance = DTYPES[str(wanted.dtype).removeprefix("torch.")].tolerance
    if not wanted.is_floating_point():
        share = float((wanted != got).double().mean())
        return f"{share:.1%} of the entries differ" if share > max(tolerance, slack) else None
    wanted, got = wanted.double(), got.double()
    finite = wanted.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return None if slack == float("inf") else "infinities or NaNs are elsewhere"
    largest = float(wanted[finite].abs().max()) if bool(finite.any()) else 0.0
    difference = float((wanted - got)[finite].abs().max()) if bool(finite.any()) else 0.0
    allowed = max(tolerance * largest, slack)
    return f"off by {difference:.3g}, the largest value is {largest:.3g}" if difference > allowed else None
