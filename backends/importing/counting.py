"""Reductions and arithmetic of booleans and integers in PyTorch's types: sums and products count in int64.

TVM adds booleans as booleans, or fails to, and keeps the type of integers that it sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition

__all__ = ["COUNTED"]

A = torch.ops.aten


def _kind(x: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    if dtype is not None:
        return dtype
    return x.dtype if x.is_floating_point() or x.is_complex() else torch.int64


def _sum(x: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    wanted = _kind(x, dtype)
    wide = wanted if wanted.is_floating_point or wanted.is_complex else torch.int64
    if x.dtype == wide == wanted:
        return NotImplemented if dtype is None else A.sum.dim_IntList(x, axes, keepdim)
    return A.sum.dim_IntList(x.to(wide), axes, keepdim).to(wanted)


def _sum_of_all(x: Tensor, *, dtype: Any = None) -> Any:
    return A.sum.dim_IntList(x, None, dtype=dtype)


def _mean(x: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return NotImplemented if dtype is None else A.mean.dim(x.to(dtype), axes, keepdim)


def _product(x: Tensor, axis: int, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The last of the products so far."""
    if not x.dim():
        return x.to(_kind(x, dtype))
    if not x.shape[axis]:
        return torch.ones_like(x.to(_kind(x, dtype)).sum(axis, keepdim))
    found = A.cumprod.default(x, axis, dtype=_kind(x, dtype)).narrow(axis, -1, 1)
    return found if keepdim else found.squeeze(axis)


def _product_of_all(x: Tensor, *, dtype: Any = None) -> Tensor:
    return _product(x.reshape(-1), 0, dtype=dtype)


def _running(operator: OpOverload) -> Decomposition:
    """In float64 what float32 would lose on the way, as PyTorch does."""

    def decomposition(x: Tensor, axis: int, *, dtype: Any = None) -> Any:
        wanted = _kind(x, dtype)
        wide = torch.float64 if wanted.is_floating_point else wanted
        if not x.dim():
            return x.to(wanted)
        if x.dtype == wide and dtype in (None, wide):
            return NotImplemented if dtype is None else operator(x, axis)
        return operator(x.to(wide), axis).to(wanted)

    return decomposition


def _any(x: Tensor, axes: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    wanted = torch.uint8 if x.dtype == torch.uint8 else torch.bool
    return _counted_ones(x, axes, keepdim).ne(0).to(wanted)


def _all(x: Tensor, axes: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    wanted = torch.uint8 if x.dtype == torch.uint8 else torch.bool
    return _counted_ones(~_bits(x), axes, keepdim).eq(0).to(wanted)


def _counted_ones(x: Tensor, axes: int | Sequence[int] | None, keepdim: bool) -> Tensor:
    found = [axes] if isinstance(axes, int) else None if axes is None else list(axes)
    return _bits(x).to(torch.int32).sum(found, keepdim)


def _bits(x: Tensor) -> Tensor:
    return x if x.dtype == torch.bool else x != 0


def _extreme_bit(largest: bool) -> Decomposition:
    def decomposition(x: Tensor, axes: Sequence[int] = (), keepdim: bool = False) -> Any:
        if x.dtype != torch.bool:
            return NotImplemented
        return (_any if largest else _all)(x, list(axes) or None, keepdim)

    return decomposition


def _extreme_bit_along(operator: OpOverload) -> Decomposition:
    """Values and indices; booleans are compared as numbers."""

    def decomposition(x: Tensor, axis: int, keepdim: bool = False) -> Any:
        if x.dtype != torch.bool:
            return NotImplemented
        values, indices = operator(x.to(torch.uint8), axis, keepdim)
        return values.ne(0), indices

    return decomposition


COUNTED: Mapping[OpOverload, Decomposition] = {
    A.sum.dim_IntList: _sum,
    A.sum.default: _sum_of_all,
    A.mean.dim: _mean,
    A.mean.default: lambda x, *, dtype=None: A.mean.dim(x, list(range(x.dim())), dtype=dtype),
    A.prod.default: _product_of_all,
    A.prod.dim_int: _product,
    A.cumsum.default: _running(A.cumsum.default),
    A.cumprod.default: _running(A.cumprod.default),
    A.any.default: _any,
    A.any.dim: _any,
    A.any.dims: _any,
    A.all.default: _all,
    A.all.dim: _all,
    A.all.dims: _all,
    A.amax.default: _extreme_bit(largest=True),
    A.amin.default: _extreme_bit(largest=False),
    A.max.default: _extreme_bit(largest=True),
    A.min.default: _extreme_bit(largest=False),
    A.max.dim: _extreme_bit_along(A.max.dim),
    A.min.dim: _extreme_bit_along(A.min.dim),
}
"""Each gives NotImplemented where TVM's importer does the operator right as it is."""
