"""Windows that move over an axis, and their sum back into it: unfold, fold, and transposed convolution through them.

Along each axis alone a window is a list of places, so an image's windows are read along one axis after the other; no table is
longer than what one axis has. The sum is read too, not written: each place of the output takes what its windows hold for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition
from .tables import stored

__all__ = ["WINDOWS"]

A = torch.ops.aten


@stored
def window_places(count: int, size: int, step: int, dilation: int) -> np.ndarray[Any, Any]:
    """Where the entries of windows lie: of all windows the first entries, then the second, and so on."""
    return (np.arange(size)[:, None] * dilation + np.arange(count) * step).reshape(-1)


@stored
def covering_places(extent: int, count: int, size: int, step: int, dilation: int, before: int) -> np.ndarray[Any, Any]:
    """Which entries of windows, in the order of `window_places`, lie at each place of an axis, and how many at most.

    Rows are the places' first entries, second ones, and so on; where there is none, it is the one behind the last. `before`
    places of the first window lie before the axis.
    """
    reached = np.arange(size)[:, None] * dilation + np.arange(count) * step - before
    found: list[list[int]] = [[] for _ in range(extent)]
    for entry, place in enumerate(reached.reshape(-1)):
        if 0 <= place < extent:
            found[place].append(entry)
    most = max(1, *[len(entries) for entries in found]) if extent else 1
    return np.array([[*entries, *[size * count] * (most - len(entries))] for entries in found], dtype=np.int64).T.copy()


def windows_along(x: Tensor, axis: int, count: int, size: int, step: int, dilation: int) -> Tensor:
    """`x` with ``(size, count)`` in place of one axis: the entries of each of `count` windows."""
    places = window_places(count, size, step, dilation)
    found = A.index_select.default(x, axis, places)
    return found.reshape([*x.shape[:axis], size, count, *x.shape[axis + 1 :]])


def summed_along(x: Tensor, axis: int, extent: int, step: int, dilation: int, before: int) -> Tensor:
    """Takes `windows_along` back: the sum of all entries of windows at each of `extent` places, ``(size, count)`` at `axis`."""
    size, count = x.shape[axis : axis + 2]
    flat = x.reshape([*x.shape[:axis], size * count, *x.shape[axis + 2 :]])
    flat = A.constant_pad_nd.default(flat, [*[0, 0] * (flat.dim() - axis - 1), 0, 1])
    places = covering_places(extent, count, size, step, dilation, before)
    found = A.index_select.default(flat, axis, places.reshape(-1))
    found = found.reshape([*flat.shape[:axis], places.shape[0], extent, *flat.shape[axis + 1 :]])
    return found.sum(axis) if places.shape[0] > 1 else found.squeeze(axis)


def unfold(x: Tensor, axis: int, size: int, step: int) -> Tensor:
    """``Tensor.unfold``: windows in place of an axis, their entries as the last one."""
    if not x.dim():
        return x.reshape(1).narrow(0, 0, size)
    axis %= x.dim()
    count = (x.shape[axis] - size) // step + 1
    if size == step:
        found = x.narrow(axis, 0, count * size).reshape([*x.shape[:axis], count, size, *x.shape[axis + 1 :]])
        return found.movedim(axis + 1, -1)
    return windows_along(x, axis, count, size, step, 1).movedim(axis, -1)


def im2col(
    x: Tensor, size: Sequence[int], dilation: Sequence[int], padding: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """``F.unfold``: columns of channels and kernel positions, one for each window."""
    lead, channels = x.shape[:-3], x.shape[-3]
    x = A.constant_pad_nd.default(x, [padding[1], padding[1], padding[0], padding[0]]) if any(padding) else x
    counts = [(x.shape[axis - 2] - dilation[axis] * (size[axis] - 1) - 1) // stride[axis] + 1 for axis in (0, 1)]
    rows = windows_along(x, x.dim() - 2, counts[0], size[0], stride[0], dilation[0])
    both = windows_along(rows, rows.dim() - 1, counts[1], size[1], stride[1], dilation[1])
    return both.transpose(-2, -3).reshape([*lead, channels * math.prod(size), math.prod(counts)])


def col2im(
    x: Tensor, output: Sequence[int], size: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:  # fmt: skip
    """``F.fold``: what `im2col` reads, summed where windows overlap."""
    counts = [
        (output[axis] + 2 * padding[axis] - dilation[axis] * (size[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    lead, channels = x.shape[:-2], x.shape[-2] // math.prod(size)
    windows = x.reshape([*lead, channels, *size, *counts])
    return _summed(windows, output, stride, dilation, padding)


def _summed(
    windows: Tensor, output: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """An image of the `output` extents from ``(..., *size, *counts)``, the last axis first, as it is the shortest to move."""
    axes = len(output)
    for axis in reversed(range(axes)):
        # What is done lies behind; of the others, all sizes lie before all counts.
        at = windows.dim() - axes - (axis + 1)
        windows = windows.movedim(at + axis, at + 2 * axis) if axis else windows
        windows = summed_along(windows, at + 2 * axis, output[axis], stride[axis], dilation[axis], padding[axis])
    return windows


def as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Tensor:
    """Entries of a tensor whose rows lie one after the other; of another, PyTorch reads what is beside it in memory."""
    return A.index_select.default(_in_a_row(x), 0, strided_places(*size, *stride, offset or 0)).reshape(size)


def as_strided_scatter(
    x: Tensor, source: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Tensor:
    places = strided_places(*size, *stride, offset or 0)
    return A.index_put.default(_in_a_row(x), [places], source.expand(size).reshape(-1)).reshape(x.shape)


def _in_a_row(x: Tensor) -> Tensor:
    if not x.is_contiguous() or x.storage_offset():
        raise ValueError("as_strided reads a view as it lies in memory; call contiguous() on it before")
    return x.reshape(-1)


@stored
def strided_places(*description: int) -> np.ndarray[Any, Any]:
    """From sizes, strides and an offset."""
    axes = len(description) // 2
    places = np.full([1] * axes, description[-1])
    for axis, (extent, stride) in enumerate(zip(description[:axes], description[axes:-1], strict=True)):
        places = places + np.arange(extent).reshape([-1 if at == axis else 1 for at in range(axes)]) * stride
    return places.reshape(-1)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    transposed: bool, output_padding: Sequence[int], groups: int,
) -> Any:  # fmt: skip
    """Transposed along three axes: each input makes a window of outputs, a matrix product, and windows are summed."""
    if not transposed or len(stride) != 3 or x.dtype != torch.float32:
        return NotImplemented
    size, (batch, channels, *counts) = weight.shape[2:], x.shape
    output = [
        (count - 1) * stride[axis] - 2 * padding[axis] + dilation[axis] * (size[axis] - 1) + output_padding[axis] + 1
        for axis, count in enumerate(counts)
    ]
    rows = x.reshape(batch, groups, channels // groups, math.prod(counts)).transpose(-1, -2)
    kernel = weight.reshape(groups, channels // groups, weight.shape[1] * math.prod(size))
    made = [torch.matmul(rows.select(1, group), kernel.select(0, group)) for group in range(groups)]
    windows = torch.cat(made, -1).transpose(-1, -2).reshape(batch, groups * weight.shape[1], *size, *counts)
    found = _summed(windows, output, stride, dilation, padding)
    return found if bias is None else found + bias.reshape(-1, *[1] * len(counts))


WINDOWS: Mapping[OpOverload, Decomposition] = {
    A.unfold.default: unfold,
    A.im2col.default: im2col,
    A.col2im.default: col2im,
    A.as_strided.default: as_strided,
    A.as_strided_scatter.default: as_strided_scatter,
    A.convolution.default: convolution,
}
