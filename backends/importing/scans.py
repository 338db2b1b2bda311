"""Cumulative operators that TVM does not have: each step joins a window of results with the one before it, so that they
double.

A scan of n entries takes the logarithm of n steps over the whole tensor (Hillis and Steele, 1986), all of them parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition

__all__ = ["SCANS"]

A = torch.ops.aten

Parts = tuple[Tensor, ...]


def _scanned(parts: Parts, axis: int, joined: Callable[[Parts, Parts], Parts]) -> Parts:
    """`joined` takes results of neighbouring windows, the left first, and must be associative."""
    extent, reach = parts[0].shape[axis], 1
    while reach < extent:
        left = tuple(part.narrow(axis, 0, extent - reach) for part in parts)
        right = tuple(part.narrow(axis, reach, extent - reach) for part in parts)
        both = joined(left, right)
        parts = tuple(
            torch.cat([part.narrow(axis, 0, reach), found], axis) for part, found in zip(parts, both, strict=True)
        )
        reach *= 2
    return parts


def extreme(sign: int) -> Decomposition:
    """``cummax`` or, with a negative sign, ``cummin``: values and where they were found last. NaN is beyond all others."""

    def joined(left: Parts, right: Parts) -> Parts:
        taken = right[0] >= left[0] if sign > 0 else right[0] <= left[0]
        if left[0].is_floating_point():
            known = torch.logical_and(taken, torch.logical_not(torch.isnan(left[0])))
            taken = torch.logical_or(known, torch.isnan(right[0]))
        return tuple(torch.where(taken, after, before) for before, after in zip(left, right, strict=True))

    def decomposition(x: Tensor, axis: int) -> Any:
        if not x.dim():
            return x.clone(), torch.zeros((), dtype=torch.int64)
        axis %= x.dim()
        numbers = x.to(torch.int32) if x.dtype == torch.bool else x
        shape = [-1 if at == axis else 1 for at in range(x.dim())]
        places = torch.arange(x.shape[axis]).reshape(shape).expand(x.shape)
        values, indices = _scanned((numbers, places), axis, joined)
        return (values != 0 if x.dtype == torch.bool else values), indices

    return decomposition


def logcumsumexp(x: Tensor, axis: int) -> Any:
    def joined(left: Parts, right: Parts) -> Parts:
        most = torch.maximum(left[0], right[0])
        total = most + torch.log1p(torch.exp(-(left[0] - right[0]).abs()))
        return (torch.where(torch.isinf(most), most, total),)

    return _scanned((x,), axis % x.dim(), joined)[0] if x.dim() else x.clone()


SCANS: Mapping[OpOverload, Decomposition] = {
    A.cummax.default: extreme(1),
    A.cummin.default: extreme(-1),
    A.logcumsumexp.default: logcumsumexp,
}
