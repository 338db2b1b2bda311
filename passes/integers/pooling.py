"""Means of quantised values: sums of codes, and one multiplication."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .asking import Asking
from .layers import along
from .operators import OPERATORS
from .scheme import Codes, rounded

__all__ = ["pooled_codes"]

A = torch.ops.aten

_ADAPTIVE = {A.adaptive_avg_pool1d.default: 1, A.adaptive_avg_pool2d.default: 2}
_WINDOWED = {A.avg_pool1d.default: 1, A.avg_pool2d.default: 2}
"""By operator, over how many axes."""
_MOST = 2**31 // 256
"""Codes that are added up, so that they fit in int32."""


@dataclass(frozen=True)
class _Windows:
    """Of equally many pixels each, in rows and columns."""

    window: list[int]
    stride: list[int]
    padding: list[int]


def pooled_codes(asking: Asking, node: fx.Node, codes: Codes) -> fx.Node | None:
    """The mean over some axes, or over windows that all have equally many pixels. A line is an image of height 1."""
    known = asking.known(node.args[0]) if node.args else None
    if known is None:
        return None
    source, values = known
    shape = [int(extent) for extent in values.meta["val"].shape]
    axes = _axes(node, shape)
    if axes is not None:
        count = math.prod(shape[axis] for axis in axes)
        if not 0 < count < _MOST:
            return None
        image = _as_image(asking, node, values, shape, axes)
        sums = asking.emit(node, OPERATORS.total.default, image, node.meta["val"].dim() == 4)
    elif (found := _windows(node, shape)) is not None:
        line = len(shape) == 3
        image = asking.emit(node, A.reshape.default, values, [*shape[:2], 1, shape[2]]) if line else values
        arguments = (found.window, found.stride, found.padding, source.zero)
        sums, count = asking.emit(node, OPERATORS.window_total.default, image, *arguments), math.prod(found.window)
    else:
        return None
    multiplier = rounded(source.scale / (count * codes.scale))
    if not math.isfinite(multiplier):
        return None
    scale = torch.full((int(sums.meta["val"].shape[1]),), multiplier)
    factors = asking.constants.node(node, scale)
    target = OPERATORS.requantize.default
    offset = -count * source.zero
    means = asking.emit(node, target, sums, factors, 1, offset, codes.zero, codes.low, codes.high)
    return asking.shaped(node, means)


def _axes(node: fx.Node, shape: Sequence[int]) -> list[int] | None:
    """The axes that a mean is over, all of each; None where it is over something else."""
    if node.target in _ADAPTIVE:
        wanted: Any = node.args[1]
        return list(range(len(shape) - len(wanted), len(shape))) if set(wanted) == {1} else None
    if node.target not in (A.mean.default, A.mean.dim) or node.kwargs.get("dtype") is not None:
        return None
    axes: Any = (node.args[1] if len(node.args) > 1 else None) or range(len(shape))
    return sorted(axis % len(shape) for axis in axes)


def _as_image(asking: Asking, node: fx.Node, values: fx.Node, shape: list[int], axes: list[int]) -> fx.Node:
    """``(N, C, H, W)`` whose pixels are what is added up: the axes behind the others."""
    kept = [axis for axis in range(len(shape)) if axis not in axes]
    order = [*kept, *axes]
    if order != list(range(len(shape))):
        values = asking.emit(node, A.permute.default, values, order)
    area = [shape[axis] for axis in axes] if len(axes) == 2 else [1, math.prod(shape[axis] for axis in axes)]
    batch, channels = (shape[kept[0]], math.prod(shape[axis] for axis in kept[1:])) if kept else (1, 1)
    image = [batch, channels, *area]
    return values if list(values.meta["val"].shape) == image else asking.emit(node, A.reshape.default, values, image)


def _windows(node: fx.Node, shape: Sequence[int]) -> _Windows | None:
    """Of the last axes; None where they have different numbers of pixels, or there is no batch."""
    target: Any = node.target
    axes = {**_ADAPTIVE, **_WINDOWED}.get(target)
    if axes is None or len(shape) != axes + 2:
        return None
    area = shape[2:]
    if node.target in _ADAPTIVE:
        wanted: Any = node.args[1]
        if any(want == 0 or extent % want for extent, want in zip(area, wanted, strict=True)):
            return None
        window = [extent // want for extent, want in zip(area, wanted, strict=True)]
        return _of_images(window, window, [0] * axes)
    given: Sequence[Any] = node.args
    defaults: Sequence[Any] = (None, [], [0], False, True, None)
    size, stride, padding, ceil, counts, divisor = [*given[1:], *defaults[len(given) - 1 :]]
    padding = along(padding, axes)
    if ceil or divisor is not None or (any(padding) and not counts):
        return None
    return _of_images(along(size, axes), along(stride or size, axes), padding)


def _of_images(window: list[int], stride: list[int], padding: list[int]) -> _Windows:
    if len(window) == 1:
        return _Windows([1, *window], [1, *stride], [0, *padding])
    return _Windows(window, stride, padding)
