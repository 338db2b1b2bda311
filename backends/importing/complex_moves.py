"""Operators that move the entries of complex tensors, or treat the two parts as two tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition
from .complex_pairs import as_complex, pair, paired, parts

__all__ = ["MOVES", "cat", "stack"]

A = torch.ops.aten


def _moved(operator: OpOverload, *changes: Callable[[Tensor, Any], Any]) -> Decomposition:
    """An operator that only moves entries: on the pairs, with arguments as `changes` make them for an axis more."""

    def decomposition(x: Tensor, *rest: Any, **options: Any) -> Tensor:
        changed = [change(x, given) for change, given in zip(changes, rest, strict=False)]
        return as_complex(operator(pair(x), *changed, *rest[len(changes) :], **options))

    return decomposition


def _same(x: Tensor, given: Any) -> Any:
    return given


def _axis(x: Tensor, axis: int) -> int:
    return axis % max(1, x.dim())


def _new_axis(x: Tensor, axis: int) -> int:
    return axis % (x.dim() + 1)


def _axes(x: Tensor, axes: int | Sequence[int]) -> list[int]:
    return [_axis(x, axis) for axis in ([axes] if isinstance(axes, int) else axes)]


def _and_two(x: Tensor, shape: Sequence[int]) -> list[int]:
    return [*shape, 2]


def _view(x: Tensor, shape: Sequence[int]) -> list[int]:
    known = [extent for extent in shape if extent != -1]
    return [*[x.numel() // max(1, math.prod(known)) if extent == -1 else extent for extent in shape], 2]


def _and_one(x: Tensor, repeats: Sequence[int]) -> list[int]:
    return [*repeats, 1]


def _padding(x: Tensor, widths: Sequence[int]) -> list[int]:
    return [0, 0, *widths]


def _permuted(x: Tensor, order: Sequence[int]) -> list[int]:
    return [*_axes(x, order), x.dim()]


MOVES: Mapping[OpOverload, Decomposition] = {
    A.view.default: _moved(A.view.default, _view),
    A._unsafe_view.default: _moved(A.reshape.default, _view),
    A.reshape.default: _moved(A.reshape.default, _view),
    A.permute.default: _moved(A.permute.default, _permuted),
    A.transpose.int: _moved(A.transpose.int, _axis, _axis),
    A.unsqueeze.default: _moved(A.unsqueeze.default, _new_axis),
    A.squeeze.dim: _moved(A.squeeze.dim, _axis),
    A.squeeze.dims: _moved(A.squeeze.dims, _axes),
    A.expand.default: _moved(A.expand.default, _and_two),
    A.repeat.default: _moved(A.repeat.default, _and_one),
    A.slice.Tensor: _moved(A.slice.Tensor, _axis),
    A.select.int: _moved(A.select.int, _axis),
    A.unfold.default: lambda x, axis, size, step: as_complex(
        pair(x).unfold(_axis(x, axis), size, step).transpose(-1, -2)
    ),
    A.flip.default: _moved(A.flip.default, _axes),
    A.roll.default: lambda x, shifts, axes=(): (
        _moved(A.roll.default, _same, _axes)(x, shifts, axes)
        if axes
        else A.roll.default(x.reshape(-1), shifts, [0]).reshape(x.shape)
    ),
    A.index_select.default: _moved(A.index_select.default, _axis),
    A.index.Tensor: _moved(A.index.Tensor),
    A.gather.default: lambda x, axis, index: paired(*[part.gather(axis, index) for part in parts(x)]),
    A.clone.default: lambda x, **options: as_complex(pair(x).clone()),
    A.alias.default: lambda x: as_complex(pair(x)),
    A.constant_pad_nd.default: _moved(A.constant_pad_nd.default, _padding),
    A.diagonal.default: lambda x, offset=0, dim1=0, dim2=1: as_complex(
        A.diagonal.default(pair(x), offset, _axis(x, dim1), _axis(x, dim2)).transpose(-1, -2)
    ),
    A.sum.dim_IntList: lambda x, axes=None, keepdim=False, dtype=None: paired(
        *[A.sum.dim_IntList(part, axes, keepdim) for part in parts(x)]
    ),
    A.sum.default: lambda x, dtype=None: paired(*[part.sum() for part in parts(x)]),
    A.mean.dim: lambda x, axes=None, keepdim=False, dtype=None: paired(
        *[A.mean.dim(part, axes, keepdim) for part in parts(x)]
    ),
    A.mean.default: lambda x, dtype=None: paired(*[part.mean() for part in parts(x)]),
    A.tril.default: lambda x, diagonal=0: paired(*[part.tril(diagonal) for part in parts(x)]),
    A.triu.default: lambda x, diagonal=0: paired(*[part.triu(diagonal) for part in parts(x)]),
    A.split.Tensor: lambda x, size, axis=0: [as_complex(part) for part in pair(x).split(size, _axis(x, axis))],
    A.split_with_sizes.default: lambda x, sizes, axis=0: [
        as_complex(part) for part in pair(x).split(sizes, _axis(x, axis))
    ],
    A.cumsum.default: lambda x, axis, dtype=None: paired(*[part.cumsum(axis) for part in parts(x)]),
}
"""Operators for which the two parts are two tensors."""


def cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    return as_complex(A.cat.default([pair(x) for x in tensors], _axis(tensors[0], axis)))


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    return as_complex(A.stack.default([pair(x) for x in tensors], _new_axis(tensors[0], axis)))
