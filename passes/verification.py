"""Translation validation: the compacted graph runs against the masked one before anybody gets it.

Both run on inputs of several kinds (see `check_inputs`), at other sizes too where these may vary, and draw the same random
numbers. An input that the masked graph itself does not take says nothing about the compacted one, and is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from ..frontend.base.errors import CheckError, InputError
from .additive_masks import additive_masks
from .check_inputs import CERTIFICATE_KINDS, check_inputs
from .dependency import DependencyView
from .index_ranges import index_ranges
from .liveness import Liveness
from .other_sizes import at_other_sizes
from .outcome import Certificate
from .running import Recorder, Runner, Shaken
from .values import is_tensor, shape_of, source_line

__all__ = ["TOLERANCE", "verify"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference allowed, relative to the largest output, by the narrower of two types: the one the check runs in
and the one the parameters are stored in, because a folded constant is rounded to the latter."""

_RESIZED_KINDS = ("as given", "one row false")
_AMPLIFIED = 1_000.0
"""A difference this many times what rounding otherwise does to the masked graph's own outputs is not rounding."""
_SHAKEN_RUNS = 4


@dataclass(frozen=True)
class _Trial:
    """One input of the certificate; `sure` where the model must run on it."""

    kind: str
    inputs: tuple[Any, ...]
    seed: int
    sure: bool = False

    @property
    def shapes(self) -> tuple[str, ...]:
        tensors = (leaf for leaf in pytree.tree_leaves(self.inputs) if isinstance(leaf, torch.Tensor))
        return tuple("x".join(map(str, tensor.shape)) for tensor in tensors)


def verify(
    view: DependencyView,
    live: Liveness,
    compacted: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    dtype: torch.dtype = torch.float64,
    runs: int = 1,
    seed: int = 0,
) -> Certificate:
    """Compares the view's (masked) module with `compacted` on inputs made after the example.

    A graph that does not run in `dtype` is compared in its own types.

    Raises:
        CheckError: they differ by more than the tolerance; the message names the first node that differs.
        InputError: the masked module does not run on its example inputs.
    """
    began = time.perf_counter()
    check = _Check(view, live, compacted, _type_that_runs(view.module, example_inputs, dtype))
    for trial in _trials(view.module, example_inputs, runs, seed):
        check.run(trial)
    return Certificate(
        str(check.dtype or _own_type(view.module)).removeprefix("torch."),
        tuple(trial.shapes for trial in check.done),
        seed,
        check.absolute,
        check.relative,
        check.tolerance,
        time.perf_counter() - began,
        tuple(trial.kind for trial in check.done),
    )


def _trials(module: fx.GraphModule, example_inputs: Sequence[Any], runs: int, seed: int) -> Iterator[_Trial]:
    ranges, additive = index_ranges(module), additive_masks(module)
    for run in range(runs):
        kinds = check_inputs(example_inputs, CERTIFICATE_KINDS, seed=seed + run, ranges=ranges, additive=additive)
        for kind, inputs in kinds.items():
            yield _Trial(kind, inputs, seed + run, kind == "as given")
    larger = at_other_sizes(module, example_inputs)
    if larger is not None:
        kinds = check_inputs(larger, _RESIZED_KINDS, seed=seed + runs, ranges=ranges, additive=additive)
        for kind, inputs in kinds.items():
            yield _Trial(f"{kind}, other sizes", inputs, seed + runs)


def _type_that_runs(module: fx.GraphModule, example_inputs: Sequence[Any], dtype: torch.dtype) -> torch.dtype | None:
    """`dtype` if the graph runs in it, else None: its own types."""
    try:
        Runner(module, dtype).values(example_inputs)
        return dtype
    except Exception:
        try:
            Runner(module, None).values(example_inputs)
        except Exception as error:
            raise InputError(
                f"the model does not run on its example inputs: {_first_line(error)}; give inputs that its forward accepts"
            ) from error
        return None


class _Check:
    """The comparison under way."""

    def __init__(
        self, view: DependencyView, live: Liveness, compacted: fx.GraphModule, dtype: torch.dtype | None
    ) -> None:
        self.dtype = dtype
        kinds = {dtype or _own_type(view.module), *_stored_types(compacted)}
        self.tolerance = max(TOLERANCE.get(kind, 1e-2) for kind in kinds)
        self.absolute, self.relative = 0.0, 0.0
        self.done: list[_Trial] = []
        self._view, self._live, self._compacted = view, live, compacted

    def run(self, trial: _Trial) -> None:
        """Compares on one input. Raises CheckError."""
        try:
            expected = Runner(self._view.module, self.dtype).values(trial.inputs, trial.seed)
        except Exception:
            return  # The model itself does not take this input, so there is nothing to compare.
        try:
            found = Runner(self._compacted, self.dtype).values(trial.inputs, trial.seed)
        except Exception as error:
            raise CheckError(f"the compacted graph does not run: {_first_line(error)}; please report this") from error
        absolute, relative = _largest_difference(expected, found)
        if not relative <= self.tolerance:
            if not trial.sure and relative <= _AMPLIFIED * self._rounding(trial, expected):
                return  # The masked graph does not determine its own outputs any better here.
            where = _first_difference(self._view, self._live, self._compacted, trial, self.dtype, self.tolerance)
            raise CheckError(
                f"the compacted graph differs from the masked one by {relative:.1e}"
                f"{where}{_for_kind(trial)}; it is withheld"
            )
        self.done.append(trial)
        self.absolute, self.relative = max(absolute, self.absolute), max(relative, self.relative)

    def _rounding(self, trial: _Trial, expected: Sequence[Any]) -> float:
        """How far the masked graph's outputs move where its values are rounded otherwise."""
        shaken = Shaken(self._view.module, self.dtype)
        runs = [shaken.values(trial.inputs, trial.seed) for _ in range(_SHAKEN_RUNS)]
        return max(_largest_difference(expected, moved)[1] for moved in runs)


def _for_kind(trial: _Trial) -> str:
    return "" if trial.sure else f", on inputs of kind '{trial.kind}'"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _own_type(module: fx.GraphModule) -> torch.dtype:
    return next((tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()), torch.float32)


def _stored_types(module: fx.GraphModule) -> set[torch.dtype]:
    real = {torch.complex128: torch.float64, torch.complex64: torch.float32, torch.complex32: torch.float16}
    kinds = {real.get(parameter.dtype, parameter.dtype) for parameter in module.parameters()}
    return {kind for kind in kinds if kind.is_floating_point}


def _largest_difference(expected: Sequence[Any], found: Sequence[Any]) -> tuple[float, float]:
    """Absolute, and relative to the largest entry of each output."""
    absolute, relative = 0.0, 0.0
    if len(expected) != len(found):
        return float("inf"), float("inf")
    for a, b in zip(expected, found, strict=True):
        difference, size = _difference(a, b)
        absolute, relative = max(absolute, difference), max(relative, difference / size)
    return absolute, relative


def _difference(expected: Any, found: Any) -> tuple[float, float]:
    """Largest absolute difference and the size it is measured against; infinite where shapes or NaNs disagree."""
    if not isinstance(expected, torch.Tensor) or not isinstance(found, torch.Tensor):
        return (0.0 if type(expected) is type(found) and expected == found else float("inf")), 1.0
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf"), 1.0
    if expected.numel() == 0:
        return 0.0, 1.0
    if expected.is_complex():
        expected, found = torch.view_as_real(expected.resolve_conj()), torch.view_as_real(found.resolve_conj())
    if not expected.is_floating_point():
        return float((expected != found).sum()), 1.0
    same = (expected == found) | (expected.isnan() & found.isnan())
    gap = torch.where(same, torch.zeros_like(expected), (expected - found).abs())
    finite = expected[expected.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    worst = float(gap.nan_to_num(nan=float("inf"), posinf=float("inf")).max())
    return worst, size if size > 0 else 1.0


def _first_difference(
    view: DependencyView,
    live: Liveness,
    compacted: fx.GraphModule,
    trial: _Trial,
    dtype: torch.dtype | None,
    limit: float,
) -> str:
    """Names the first node whose kept channels differ: `` first at 'conv2d_3' (model.py:12)``."""
    recorders = [Recorder(view.module, dtype), Recorder(compacted, dtype)]
    for recorder in recorders:
        try:
            recorder.values(trial.inputs, trial.seed)
        except Exception:
            break
    expected, found = (recorder.seen for recorder in recorders)
    for node in view.module.graph.nodes:
        if node.op != "call_function" or not is_tensor(node) or node.name not in expected or node.name not in found:
            continue
        value = expected[node.name]
        for axis, size in enumerate(shape_of(node)):
            kept = live.kept(node, axis) if isinstance(size, int) else np.ones(1, bool)
            if not kept.all():
                value = value.index_select(axis, torch.from_numpy(np.flatnonzero(kept)))
        difference, size = _difference(value, found[node.name])
        if not difference <= limit * size:
            return f", first at '{node.name}' ({source_line(node) or node.target})"
    return ""
