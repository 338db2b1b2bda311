"""Sums, means and maxima of bags of rows: ``embedding_bag``, whose bags are runs of a list of indices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition

__all__ = ["BAGS"]

A = torch.ops.aten

_SUM, _MEAN, _MAX = range(3)


def embedding_bag(
    weight: Tensor, indices: Tensor, offsets: Tensor, scale_grad_by_freq: bool = False, mode: int = _SUM,
    sparse: bool = False, per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The bags, the bag of each index, how many each bag has, and that again, for which nobody asks in inference."""
    count, bags = indices.numel(), offsets.numel() - include_last_offset
    # Each offset begins a bag; what stands behind the last bag, and padding, goes to one more that nobody reads.
    begun = torch.zeros(count + 1, dtype=torch.int64)
    begun = A.index_add.default(begun, 0, offsets.to(torch.int64), torch.ones(offsets.numel(), dtype=torch.int64))
    bag = (begun.cumsum(0) - 1).narrow(0, 0, count).clamp(0, bags)
    if padding_idx >= 0:
        bag = torch.where(indices == padding_idx, bags, bag)
    rows = A.index_select.default(weight, 0, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    empty = torch.zeros(bags + 1, weight.shape[1], dtype=weight.dtype)
    sizes = A.index_add.default(torch.zeros(bags + 1, dtype=torch.int64), 0, bag, torch.ones(count, dtype=torch.int64))
    if mode == _MAX:
        spread = bag.unsqueeze(1).expand(rows.shape)
        found = A.scatter_reduce.two(empty, 0, spread, rows, "amax", include_self=False)
    else:
        found = A.index_add.default(empty, 0, bag, rows)
        found = found / sizes.clamp(min=1).unsqueeze(1).to(found.dtype) if mode == _MEAN else found
    sizes = sizes.narrow(0, 0, bags)
    return found.narrow(0, 0, bags), bag, sizes, sizes


BAGS: Mapping[OpOverload, Decomposition] = {
    A._embedding_bag.default: embedding_bag,
    A._embedding_bag_forward_only.default: embedding_bag,
}
