"""Sorting, and where extreme elements are, with NaN as the largest of all; what is found by sorting."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from tvm import relax

from ..kernels.sorting import SortSpec, sort_kernel
from ..legalizations.extrema import arg_extreme
from .arithmetic import Decomposition

__all__ = ["ORDERED", "ORDERING", "given"]

A = torch.ops.aten


def given(node: fx.Node, importer: Any, *names: str) -> dict[str, Any]:
    """Arguments by name, however they were passed; the importer's values for those that are values."""
    operator: Any = node.target
    positions = [argument.name for argument in operator._schema.arguments]
    found = {argument.name: argument.default_value for argument in operator._schema.arguments}
    found |= dict(zip(positions, importer.retrieve_args(node), strict=False)) | dict(node.kwargs)
    return {name: found.get(name) for name in names}


def _extreme(largest: bool) -> Callable[[fx.Node, Any], Any]:
    """``max`` or ``min`` along a dimension: values and indices; where nobody reads these, values alone."""

    def convert(node: fx.Node, importer: Any) -> Any:
        x, axis, keepdims = given(node, importer, "self", "dim", "keepdim").values()
        if x.ty.shape and not any(user.args[1:] != (0,) for user in node.users):
            reduce = relax.op.max if largest else relax.op.min
            values = importer.block_builder.emit(reduce(x, [axis], bool(keepdims)))
            return relax.Tuple([values, values])
        if not x.ty.shape:
            return relax.Tuple([x, importer.block_builder.emit(relax.op.zeros([], "int64"))])
        found = importer.block_builder.emit_te(
            arg_extreme, x, axis, bool(keepdims), largest, primfunc_name_hint="extreme"
        )
        return relax.Tuple([importer.block_builder.emit(found[1]), importer.block_builder.emit(found[0])])

    return convert


def _place(largest: bool) -> Callable[[fx.Node, Any], Any]:
    """``argmax`` or ``argmin``; without a dimension, the index in the order of memory."""

    def convert(node: fx.Node, importer: Any) -> Any:
        emit = importer.block_builder.emit
        x, axis, keepdims = given(node, importer, "self", "dim", "keepdim").values()
        shape = [int(extent) for extent in x.ty.shape]
        if axis is None or not shape:
            x, axis = emit(relax.op.reshape(x, [-1])), 0
        found = importer.block_builder.emit_te(
            arg_extreme, x, axis, bool(keepdims), largest, primfunc_name_hint="extreme"
        )
        wanted = node.meta["val"].shape
        return emit(relax.op.reshape(emit(found[0]), [int(extent) for extent in wanted]))

    return convert


def _sorted(node: fx.Node, importer: Any, x: Any, axis: int, descending: bool) -> tuple[Any, Any]:
    """Values and indices of `x`, sorted along `axis`."""
    emit = importer.block_builder.emit
    rank = len(x.ty.shape)
    order = [number for number in range(rank) if number != axis] + [axis]
    turned = emit(relax.op.permute_dims(x, order)) if order != sorted(order) else x
    shape = tuple(int(extent) for extent in turned.ty.shape)
    spec = SortSpec(shape, str(x.ty.dtype), descending)
    size = math.prod(shape)
    flat = emit(relax.op.reshape(turned, [size]))
    name = f"sorting_{node.name}"
    kernel = importer.block_builder.add_func(sort_kernel(spec, name), name)
    kinds = [("values", spec.dtype, size), ("indices", "int64", size), ("work", "int32", 2 * size)]
    results = [relax.TensorType([count], dtype) for _, dtype, count in kinds]
    found = emit(relax.call_tir(kernel, [flat], results))
    back = [order.index(number) for number in range(rank)]
    values, indices = (emit(relax.op.reshape(emit(relax.TupleGetItem(found, number)), shape)) for number in (0, 1))
    if order != sorted(order):
        values, indices = (emit(relax.op.permute_dims(value, back)) for value in (values, indices))
    return values, indices


def _sort(node: fx.Node, importer: Any) -> Any:
    x, axis, descending = given(node, importer, "self", "dim", "descending").values()
    if not len(x.ty.shape):
        return relax.Tuple([x, importer.block_builder.emit(relax.op.zeros([], "int64"))])
    return relax.Tuple(list(_sorted(node, importer, x, axis % len(x.ty.shape), bool(descending))))


def _topk(node: fx.Node, importer: Any) -> Any:
    x, count, axis, largest = given(node, importer, "self", "k", "dim", "largest").values()
    axis %= len(x.ty.shape)
    found = _sorted(node, importer, x, axis, bool(largest))
    emit = importer.block_builder.emit
    return relax.Tuple([emit(relax.op.strided_slice(value, [axis], [0], [int(count)])) for value in found])


ORDERING: Mapping[str, Callable[[fx.Node, Any], Any]] = MappingProxyType(
    {
        "max.dim": _extreme(largest=True),
        "min.dim": _extreme(largest=False),
        "argmax.default": _place(largest=True),
        "argmin.default": _place(largest=False),
        "sort.default": _sort,
        "sort.stable": _sort,
        "topk.default": _topk,
    }
)
"""By the operator's name, as TVM's importer takes converters."""


def _median(ignores_nans: bool) -> Decomposition:
    """The lower of two in the middle; the first NaN if there is one, or the median of the rest."""

    def decomposition(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
        if not x.dim():
            return x.clone(), torch.zeros((), dtype=torch.int64)
        values, indices = A.sort.stable(x, stable=True, dim=dim)
        extent = x.shape[dim]
        place = torch.full_like(indices.narrow(dim, 0, 1), (extent - 1) // 2)
        if x.is_floating_point():
            nans = A.isnan.default(x).to(torch.int64).sum(dim, keepdim=True)
            if ignores_nans:
                place = A.div.Tensor_mode((extent - 1) - nans, 2, rounding_mode="floor").clamp(min=0)
            else:
                place = torch.where(nans > 0, extent - nans, place)
        found = values.gather(dim, place), indices.gather(dim, place)
        return found if keepdim else (found[0].squeeze(dim), found[1].squeeze(dim))

    return decomposition


def _of_all(operator: OpOverload) -> Decomposition:
    return lambda x: operator(x.reshape(-1), 0)[0]


def _kth(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    found = [value.narrow(dim, k - 1, 1) for value in A.sort.stable(x, stable=True, dim=dim)]
    return tuple(value if keepdim else value.squeeze(dim) for value in found)  # type: ignore[return-value]


def _bits(operator: OpOverload) -> Decomposition:
    """Booleans are sorted as numbers."""

    def decomposition(x: Tensor, *rest: Any, **options: Any) -> Any:
        if x.dtype != torch.bool:
            return NotImplemented
        values, indices = operator(x.to(torch.uint8), *rest, **options)
        return values.ne(0), indices

    return decomposition


ORDERED: Mapping[OpOverload, Decomposition] = {
    A.median.dim: _median(ignores_nans=False),
    A.median.default: _of_all(A.median.dim),
    A.nanmedian.dim: _median(ignores_nans=True),
    A.nanmedian.default: _of_all(A.nanmedian.dim),
    A.sort.default: _bits(A.sort.default),
    A.sort.stable: _bits(A.sort.stable),
    A.kthvalue.default: _kth,
    A.argsort.default: lambda x, dim=-1, descending=False: A.sort.default(x, dim, descending)[1],
    A.argsort.stable: lambda x, *, stable, dim=-1, descending=False: A.sort.default(x, dim, descending)[1],
}
"""What is found by sorting."""
