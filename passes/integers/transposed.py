"""Transposed convolutions as convolutions: of pixels with codes for zero between them, by weights that are turned around."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

__all__ = ["Spread", "spread_of", "spread_out", "turned"]

A = torch.ops.aten


@dataclass(frozen=True)
class Spread:
    """What comes between and around the pixels of an image, in rows and columns.

    Attributes:
        steps: one pixel in so many is from the image.
        before, after: further pixels on both sides of all; of the last pixel's step those behind it are there already, so
            that some may be too many.
    """

    steps: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]


def spread_of(
    window: Sequence[int], stride: Sequence[int], padding: Sequence[int], more: Sequence[int], dilation: Sequence[int]
) -> Spread:
    """Of a transposed convolution, from its options for rows and columns; `more`: its output padding."""
    reach = [step * (extent - 1) - pad for step, extent, pad in zip(dilation, window, padding, strict=True)]
    after = [size + extra - (step - 1) for size, extra, step in zip(reach, more, stride, strict=True)]
    return Spread((stride[0], stride[1]), (reach[0], reach[1]), (after[0], after[1]))


def turned(weight: Tensor, groups: int) -> Tensor:
    """``(O, I / groups, ...)`` of a convolution from ``(I, O / groups, ...)`` of a transposed one."""
    inputs, outputs, *window = weight.shape
    grouped = weight.view(groups, inputs // groups, outputs, *window).transpose(1, 2)
    return grouped.reshape(groups * outputs, inputs // groups, *window).flip(*range(2, weight.dim())).contiguous()


def spread_out(at: fx.Node, emit: Callable[..., fx.Node], image: fx.Node, zero: int, spread: Spread) -> fx.Node:
    """Codes ``(N, C, H, W)`` with `zero` between and around them."""
    batch, channels, height, width = (int(extent) for extent in image.meta["val"].shape)
    rows, columns = spread.steps
    if (rows, columns) != (1, 1):
        image = emit(at, A.reshape.default, image, [batch * channels, height, 1, width, 1])
        image = emit(at, A.constant_pad_nd.default, image, [0, columns - 1, 0, 0, 0, rows - 1], zero)
        image = emit(at, A.reshape.default, image, [batch, channels, height * rows, width * columns])
    (top, left), (bottom, right) = spread.before, spread.after
    margins: Any = [left, right, top, bottom]
    return emit(at, A.constant_pad_nd.default, image, margins, zero) if any(margins) else image
