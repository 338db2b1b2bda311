"""Products of matrices that TVM's importer lacks, and distances between rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition
from .tables import stored

__all__ = ["CONTRACTIONS"]

A = torch.ops.aten


def whole_product(first: Tensor, second: Tensor) -> Any:
    """Of integers, whose products TVM does not support: a sum of products."""
    if first.is_floating_point() or first.is_complex():
        return NotImplemented
    return (first.unsqueeze(-1) * second.unsqueeze(-3)).sum(-2, dtype=first.dtype)


def addbmm(x: Tensor, first: Tensor, second: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    found = torch.bmm(first, second).sum(0)
    return found * alpha + x * beta


def addmv(x: Tensor, matrix: Tensor, vector: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    return torch.mm(matrix, vector.unsqueeze(1)).squeeze(1) * alpha + x * beta


def _distance(difference: Tensor, p: float) -> Tensor:
    """The norm of this order along the last axis."""
    if p == 2:
        return torch.sqrt((difference * difference).sum(-1))
    if p == math.inf:
        return difference.abs().amax(-1)
    if p == 0:
        return (difference != 0).to(difference.dtype).sum(-1)
    if p == 1:
        return difference.abs().sum(-1)
    return (difference.abs() ** p).sum(-1) ** (1 / p)


def cdist(first: Tensor, second: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    return _distance(first.unsqueeze(-2) - second.unsqueeze(-3), p)


@stored
def pairs_of_rows(count: int) -> np.ndarray[Any, Any]:
    """``(2, pairs)``: every row and every later one."""
    return np.stack(np.triu_indices(count, 1)).astype(np.int64)


def pdist(x: Tensor, p: float = 2) -> Tensor:
    rows = pairs_of_rows(x.shape[0])
    return _distance(A.index_select.default(x, 0, rows[0]) - A.index_select.default(x, 0, rows[1]), p)


CONTRACTIONS: Mapping[OpOverload, Decomposition] = {
    A.mm.default: whole_product,
    A.bmm.default: whole_product,
    A.addbmm.default: addbmm,
    A.addmv.default: addmv,
    A._cdist_forward.default: cdist,
    A._pdist_forward.default: pdist,
}
