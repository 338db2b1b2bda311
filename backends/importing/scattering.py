"""Writing at indices. Every form is one of two: rows of a matrix, or elements along one axis; `kernels.scattering` has both.

Of entries that are written several times without a sum, the last is kept, as PyTorch does on one thread. An index outside of
the tensor, for which PyTorch raises, writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from tvm import relax

from .arithmetic import Decomposition
from .indexing import is_mask, joined, places
from .tables import stored

__all__ = ["CONVERTERS", "SCATTERING"]

A = torch.ops.aten

_REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


def index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False, unsafe: bool = False
) -> Any:
    if any(is_mask(given) for given in indices):
        return _masked(x, indices, values, accumulate)
    if x.dim() == 2 and len(indices) == 1 and _are_rows(indices[0], values, x):
        return NotImplemented
    axes = places(indices)
    rest = [axis for axis in range(x.dim()) if axis not in axes]
    order = [*axes, *rest]
    extents, beside = [x.shape[axis] for axis in axes], [x.shape[axis] for axis in rest]
    place = joined([given for given in indices if given is not None], extents)
    # Values broadcast to the shape that reading gives, whose indexed axes are first unless they are neighbours.
    first = axes[0] if order[: len(axes)] == list(range(axes[0], axes[-1] + 1)) else 0
    spread = values.expand([*beside[:first], *place.shape, *beside[first:]])
    spread = spread.permute(
        [*range(first, first + place.dim()), *range(first), *range(first + place.dim(), spread.dim())]
    )
    rows = x.permute(order).reshape(math.prod(extents), math.prod(beside))
    updates = spread.reshape(place.numel(), math.prod(beside)).to(x.dtype)
    written = _written(rows, place.reshape(-1), updates, accumulate)
    back = sorted(range(len(order)), key=order.__getitem__)
    return written.reshape([*extents, *beside]).permute(back)


def _are_rows(index: Tensor | None, values: Tensor, x: Tensor) -> bool:
    return (
        index is not None
        and index.dim() == 1
        and index.dtype == torch.int64
        and values.shape == (index.shape[0], x.shape[1])
        and x.dtype != torch.bool
        and values.dtype == x.dtype
    )


def _written(rows: Tensor, place: Tensor, updates: Tensor, accumulate: bool) -> Tensor:
    """Rows whose kernel takes numbers; an index counts from the start."""
    if rows.dtype != torch.bool:
        return A.index_put.default(rows, [place], updates, accumulate)
    numbers = A.index_put.default(rows.to(torch.int32), [place], updates.to(torch.int32), accumulate)
    return numbers != 0


def _masked(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool) -> Tensor:
    """At the ones of one mask: one value for all, or one after the other in order."""
    axes = places(indices)
    if len(axes) > 1:
        raise ValueError("a boolean mask beside other indices has no fixed number of entries; write with torch.where")
    first = axes[0]
    mask = indices[first]
    assert mask is not None
    mask = mask.to(torch.bool)
    behind = first + mask.dim()
    wide = mask.reshape([*[1] * first, *mask.shape, *[1] * (x.dim() - behind)])
    values = values.to(x.dtype)
    # Of the shape (before, ones, behind); all axes but that of the ones are broadcast, and it is if there is one value.
    padded = values.reshape([*[1] * (x.dim() - mask.dim() + 1 - values.dim()), *values.shape])
    if isinstance(padded.shape[first], int) and padded.shape[first] == 1:
        spread = padded.reshape([*padded.shape[:first], *[1] * mask.dim(), *padded.shape[first + 1 :]])
    else:
        if not all(isinstance(extent, int) for extent in padded.shape):
            raise ValueError(
                "values at a boolean mask that were read at a mask themselves have no fixed number; write"
                " torch.where(mask, values, x)"
            )
        number = _numbers_of_ones(mask, padded.shape[first])
        spread = A.index_select.default(padded, first, number)
        spread = spread.reshape([*padded.shape[:first], *mask.shape, *padded.shape[first + 1 :]])
    return torch.where(wide, x + spread if accumulate else spread, x)


def _numbers_of_ones(mask: Tensor, count: int) -> Tensor:
    """How many ones lie before each entry, as one axis, and less than `count`."""
    return (mask.reshape(-1).to(torch.int64).cumsum(0) - 1).clamp(0, count - 1)


def masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    number = _numbers_of_ones(mask, source.numel())
    return torch.where(mask, A.index_select.default(source.reshape(-1), 0, number).reshape(x.shape), x)


def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    found = A.index_put.default(x.reshape(-1), [index.reshape(-1)], source.reshape(-1), accumulate)
    return found.reshape(x.shape)


def index_add(x: Tensor, axis: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    source = source if alpha == 1 else source * alpha
    return A.index_put.default(*_along(x, axis, index, source), True).reshape(x.shape)


def index_copy(x: Tensor, axis: int, index: Tensor, source: Tensor) -> Tensor:
    return A.index_put.default(*_along(x, axis, index, source)).reshape(x.shape)


def _along(x: Tensor, axis: int, index: Tensor, source: Tensor) -> tuple[Tensor, list[Tensor | None], Tensor]:
    """Arguments of ``index_put`` for an index along one axis; a number has one."""
    if not x.dim():
        return x.reshape(1), [index.reshape(-1)], source.reshape(-1)
    return x, [*[None] * (axis % x.dim()), index.reshape(-1)], source


def index_fill(x: Tensor, axis: int, index: Tensor, value: Any) -> Tensor:
    """Whether an entry is written is found along one axis; so nothing is copied but by `where`."""
    if not x.dim():
        return torch.full_like(x, value)
    extent = x.shape[axis]
    marks = torch.zeros(extent, 1, dtype=torch.int32)
    marks = A.index_put.default(marks, [index.reshape(-1)], torch.ones(index.numel(), 1, dtype=torch.int32))
    shape = [1] * x.dim()
    shape[axis] = extent
    value = value.to(x.dtype) if isinstance(value, Tensor) else torch.full([], value, dtype=x.dtype)
    return torch.where((marks > 0).reshape(shape), value, x)


def index_reduce(
    x: Tensor, axis: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = -1
    named = {"prod": "prod", "mean": "mean", "amax": "amax", "amin": "amin"}[reduce]
    spread = index.reshape(shape).expand(source.shape)
    return A.scatter_reduce.two(x, axis, spread, source, named, include_self=include_self)


def scatter(x: Tensor, axis: int, index: Tensor, source: Any, *, reduce: str | None = None) -> Any:
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, source, dtype=x.dtype)
    if reduce is not None:
        return A.scatter_reduce.two(x, axis, index, source, {"add": "sum", "multiply": "prod"}[reduce])
    return _elements(x, axis, index, source, A.scatter.src)


def scatter_add(x: Tensor, axis: int, index: Tensor, source: Tensor) -> Any:
    return _elements(x, axis, index, source, A.scatter_add.default)


def scatter_reduce(
    x: Tensor, axis: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Any:
    """With what is there or, where something is written, without it."""
    if include_self and reduce == "sum":
        return A.scatter_add.default(x, axis, index, source)
    if include_self and reduce != "mean":
        return _elements(x, axis, index, source, A.scatter_reduce.two, reduce)
    counts = A.scatter_add.default(torch.zeros(x.shape, dtype=torch.int64), axis, index, torch.ones_like(index))
    if not include_self:
        x = torch.where(counts > 0, torch.full([], _neutral(reduce, x.dtype), dtype=x.dtype), x)
    if reduce != "mean":
        return A.scatter_reduce.two(x, axis, index, source, reduce)
    total = A.scatter_add.default(x, axis, index, source)
    number = counts + 1 if include_self else counts.clamp(min=1)
    return total / number if x.is_floating_point() else torch.div(total, number, rounding_mode="floor").to(x.dtype)


def _neutral(reduce: str, dtype: torch.dtype) -> Any:
    if reduce in ("sum", "mean", "prod"):
        return int(reduce == "prod")
    sign = -1 if reduce == "amax" else 1
    if dtype.is_floating_point:
        return sign * math.inf
    return torch.iinfo(dtype).max if sign > 0 else torch.iinfo(dtype).min


def _elements(x: Tensor, axis: int, index: Tensor, source: Tensor, operator: OpOverload, *reduce: str) -> Any:
    """`operator` in the form that its kernel takes: all of one shape beside the axis, and numbers."""
    if not x.dim():
        return operator(x.reshape(1), 0, index.reshape(-1), source.reshape(-1), *reduce).reshape(())
    axis %= x.dim()
    fits = all(
        extent == other for at, (extent, other) in enumerate(zip(x.shape, index.shape, strict=True)) if at != axis
    )
    if fits and source.shape == index.shape and index.dtype == torch.int64 and x.dtype != torch.bool:
        return NotImplemented
    if x.dtype == torch.bool:
        return operator(x.to(torch.int32), axis, index, source.to(torch.int32), *reduce) != 0
    for other, extent in enumerate(index.shape):
        source = source.narrow(other, 0, extent)
    index = index.to(torch.int64)
    if fits:
        return operator(x, axis, index, source, *reduce)
    inner = x
    for other, extent in enumerate(index.shape):
        inner = inner if other == axis else inner.narrow(other, 0, extent)
    inner = operator(inner, axis, index, source, *reduce)
    for other in [at for at in range(x.dim()) if at != axis and index.shape[at] < x.shape[at]]:
        beside = x.narrow(other, index.shape[other], x.shape[other] - index.shape[other])
        for further in range(other + 1, x.dim()):
            beside = beside if further == axis else beside.narrow(further, 0, index.shape[further])
        inner = torch.cat([inner, beside], other)
    return inner


@stored
def replaced(extent: int, start: int, count: int, step: int) -> np.ndarray[Any, Any]:
    """Where each entry of an axis lies in the axis followed by the `count` entries that replace some of it."""
    found = np.arange(extent)
    found[start : start + count * step : step] = extent + np.arange(count)
    return found


def slice_scatter(
    x: Tensor, source: Tensor, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    first, last, step = slice(start, end, step).indices(x.shape[axis])
    count = len(range(first, last, step))
    if not count:
        return x.clone()
    source = source.expand([*x.shape[: axis % x.dim()], count, *x.shape[axis % x.dim() + 1 :]]).to(x.dtype)
    if step > 1:
        place = replaced(x.shape[axis], first, count, step)
        return A.index_select.default(torch.cat([x, source], axis), axis, place)
    parts = [x.narrow(axis, 0, first), source, x.narrow(axis, last, x.shape[axis] - last)]
    return torch.cat([part for part in parts if part.shape[axis]], axis)


def select_scatter(x: Tensor, source: Tensor, axis: int, index: int) -> Tensor:
    index %= x.shape[axis]
    return A.slice_scatter.default(x, source.unsqueeze(axis), axis, index, index + 1)


@stored
def diagonal_replaced(rows: int, columns: int, offset: int) -> np.ndarray[Any, Any]:
    """Where each entry of a matrix lies in its rows one after the other, followed by those of a diagonal."""
    found = np.arange(rows * columns).reshape(rows, columns)
    row = np.arange(max(-offset, 0), min(rows, columns - offset))
    found[row, row + offset] = rows * columns + np.arange(len(row))
    return found.reshape(-1)


def diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    rows, columns = dim1 % x.dim(), dim2 % x.dim()
    order = [*[axis for axis in range(x.dim()) if axis not in (rows, columns)], rows, columns]
    moved = x.permute(order)
    both = torch.cat([moved.reshape([*moved.shape[:-2], -1]), source.to(x.dtype)], -1)
    place = diagonal_replaced(x.shape[rows], x.shape[columns], offset)
    found = A.index_select.default(both, -1, place).reshape(moved.shape)
    return found.permute(sorted(range(x.dim()), key=order.__getitem__))


SCATTERING: Mapping[OpOverload, Decomposition] = {
    A.index_put.default: index_put,
    A._unsafe_index_put.default: index_put,
    A._index_put_impl.default: index_put,
    A.masked_scatter.default: masked_scatter,
    A.put.default: put,
    A.index_add.default: index_add,
    A.index_copy.default: index_copy,
    A.index_fill.int_Scalar: index_fill,
    A.index_fill.int_Tensor: index_fill,
    A.index_reduce.default: index_reduce,
    A.scatter.src: scatter,
    A.scatter.value: scatter,
    A.scatter.reduce: scatter,
    A.scatter.value_reduce: scatter,
    A.scatter_add.default: scatter_add,
    A.scatter_reduce.two: scatter_reduce,
    A.slice_scatter.default: slice_scatter,
    A.select_scatter.default: select_scatter,
    A.diagonal_scatter.default: diagonal_scatter,
}


def _put(node: fx.Node, importer: Any) -> Any:
    rows, indices, values, *accumulate = importer.retrieve_args(node)
    emit = importer.block_builder.emit
    places = emit(relax.op.expand_dims(indices[0], axis=1))
    return emit(relax.op.scatter_nd(rows, places, values, "add" if accumulate and accumulate[0] else "update"))


def _scattered(reduction: str | None) -> Callable[[fx.Node, Any], Any]:
    def convert(node: fx.Node, importer: Any) -> Any:
        x, axis, index, source, *reduce = importer.retrieve_args(node)
        name = _REDUCTIONS[reduce[0]] if reduction is None else reduction
        return importer.block_builder.emit(relax.op.scatter_elements(x, index, source, axis, name))

    return convert


CONVERTERS: Mapping[str, Callable[[fx.Node, Any], Any]] = {
    "index_put.default": _put,
    "scatter.src": _scattered("update"),
    "scatter_add.default": _scattered("add"),
    "scatter_reduce.two": _scattered(None),
}
"""By the operator's name, as the importer takes them."""
