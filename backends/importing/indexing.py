"""Reading at indices, by whole rows: what PyTorch's advanced indexing means, with one list of rows of one axis.

TVM's importer takes pairs of indices for an outer product, and its kernels read wherever an index points. Here indices are
broadcast against each other, counted from the start, and joined to positions along one axis; kernels read the nearest row
where PyTorch would raise, never memory outside of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from tvm import relax

from .arithmetic import Decomposition

__all__ = ["CONVERTERS", "INDEXING", "adjacent", "from_start", "is_mask", "joined", "places"]

A = torch.ops.aten


def is_mask(index: Tensor | None) -> bool:
    """PyTorch reads bytes as masks, too."""
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def places(indices: Sequence[Tensor | None]) -> list[int]:
    """The axes that have an index."""
    return [axis for axis, index in enumerate(indices) if index is not None]


def adjacent(axes: Sequence[int]) -> bool:
    """Whether PyTorch leaves the indexed axes where they are; else they come first."""
    return list(axes) == list(range(axes[0], axes[-1] + 1))


def from_start(index: Tensor, extent: int) -> Tensor:
    """Indices in 64 bits that count from the start; those from the end are negative."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + extent, index)


def joined(indices: Sequence[Tensor], extents: Sequence[int]) -> Tensor:
    """Places along one axis in place of the axes of these extents, of the indices' common shape."""
    counted = [from_start(index, extent) for index, extent in zip(indices, extents, strict=True)]
    total = counted[0].clamp(0, extents[0] - 1) if len(counted) > 1 else counted[0]
    for index, extent in zip(counted[1:], extents[1:], strict=True):
        total = total * extent + index.clamp(0, extent - 1)
    return total


def index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    if any(is_mask(given) for given in indices):
        raise ValueError(
            "a boolean mask as an index gives as many values as it has ones, and compiled shapes are fixed; take"
            " torch.where(mask, x, 0), or indices"
        )
    axes = places(indices)
    if not adjacent(axes):
        rest = [axis for axis in range(x.dim()) if axis not in axes]
        x = x.permute([*axes, *rest])
        indices, axes = [indices[axis] for axis in axes], list(range(len(axes)))
    first, behind = axes[0], axes[-1] + 1
    extents = x.shape[first:behind]
    place = joined([given for given in indices if given is not None], extents)
    rows = x.reshape([*x.shape[:first], math.prod(extents), *x.shape[behind:]])
    found = A.index_select.default(rows, first, place.reshape(-1))
    return found.reshape([*x.shape[:first], *place.shape, *x.shape[behind:]])


def index_select(x: Tensor, axis: int, index: Tensor) -> Any:
    if x.dim():
        return NotImplemented
    return A.index_select.default(x.reshape(1), 0, index.reshape(-1)).reshape(x.shape)


def take(x: Tensor, index: Tensor) -> Tensor:
    place = from_start(index, x.numel())
    return A.index_select.default(x.reshape(-1), 0, place.reshape(-1)).reshape(index.shape)


def gather(x: Tensor, axis: int, index: Tensor, sparse_grad: bool = False) -> Any:
    """The index may be shorter than the tensor along the other axes, which TVM's kernel takes for its extents."""
    if not x.dim() or not index.dim():
        return A.gather.default(x.reshape(-1), 0, index.reshape(-1)).reshape(index.shape)
    if index.dtype == torch.int64 and all(
        extent == other
        for at, (extent, other) in enumerate(zip(x.shape, index.shape, strict=True))
        if at != axis % x.dim()
    ):
        return NotImplemented
    for other, extent in enumerate(index.shape):
        if other != axis % x.dim():
            x = x.narrow(other, 0, extent)
    return A.gather.default(x, axis, index.to(torch.int64))


INDEXING: Mapping[OpOverload, Decomposition] = {
    A.index.Tensor: index,
    A._unsafe_index.Tensor: index,
    A.index_select.default: index_select,
    A.take.default: take,
    A.gather.default: gather,
}


def _one(node: fx.Node, importer: Any) -> Any:
    """At a place that is known, and inside: `decompositions.select` counts from the start."""
    x, axis, place = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.take(x, relax.const(place, "int64"), axis, mode="clip"))


def _selected(node: fx.Node, importer: Any) -> Any:
    x, axis, index = importer.retrieve_args(node)
    return importer.block_builder.emit(relax.op.take(x, index, axis, mode="clip"))


def _embedded(node: fx.Node, importer: Any) -> Any:
    weight, index = importer.retrieve_args(node)[:2]
    return importer.block_builder.emit(relax.op.take(weight, index, 0, mode="clip"))


def _gathered(node: fx.Node, importer: Any) -> Any:
    x, axis, index = importer.retrieve_args(node)[:3]
    last = int(importer.shape_of(x)[axis]) - 1
    inside = relax.op.minimum(relax.op.maximum(index, relax.const(0, "int64")), relax.const(last, "int64"))
    return importer.block_builder.emit(relax.op.gather_elements(x, importer.block_builder.emit(inside), axis=axis))


CONVERTERS: Mapping[str, Callable[[fx.Node, Any], Any]] = {
    "select.int": _one,
    "index_select.default": _selected,
    "embedding.default": _embedded,
    "gather.default": _gathered,
}
"""By the operator's name, as the importer takes them."""
