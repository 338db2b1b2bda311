"""What the outputs of a weighted layer are sums of: rows of the numbers that one output position reads (im2col).

A linear layer reads the last axis. A convolution reads a window of its padded input; a transposed one reads a window of its
input with zeros between the positions, which makes it an ordinary convolution with the taps in reverse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import Layer
from ..values import Operation

__all__ = ["Rows", "drawn_rows", "rows_there"]

_MOST_NUMBERS = 1 << 24
"""Of one piece, so that pieces in float64 stay small."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A piece of the rows of a layer.

    Attributes:
        inputs: groups x rows x columns, float64; the columns of a row are the input channels of the group times the taps.
        outputs: rows x output channels, float64.
    """

    inputs: Tensor
    outputs: Tensor


def rows_there(layer: Layer, output: Tensor) -> int:
    """How many rows an output (of all its channels) has."""
    return output.numel() // max(1, output.shape[layer.axis])


def drawn_rows(
    op: Operation, layer: Layer, source: Tensor, output: Tensor, wanted: int, generator: torch.Generator
) -> Iterator[Rows]:
    """Rows of one call at positions that are drawn without repetition, in every image of the batch as many.

    Args:
        op: the call of the layer.
        layer: what the call is.
        source: what it reads.
        output: what it is to give: its own result, or the one it should have. As large as the result along all axes but that
            of the channels.
        wanted: rows; all of them where there are not more, and up to one more for each image.
        generator: draws the positions.
    """
    windows, targets = _windows(op, layer, source), _positions_last(layer, output)
    images, places = targets.shape[0], math.prod(targets.shape[2:])
    each = min(places, math.ceil(wanted / max(1, images)))
    numbers = windows.shape[1] * math.prod(layer.taps) + targets.shape[1]
    step = max(1, _MOST_NUMBERS // max(1, each * numbers))
    for start in range(0, images, step):
        chosen = torch.arange(start, min(images, start + step))
        image = chosen.repeat_interleave(each)
        # Sorting one random number a place draws without repetition, in all images at once.
        place = torch.rand(len(chosen), places, generator=generator).argsort(1)[:, :each].reshape(-1)
        at: tuple[Any, ...] = (image, slice(None), *_unraveled(place, targets.shape[2:]))
        read = windows[at].double()
        if layer.transposed:
            read = read.flip(tuple(range(2, read.dim())))
        yield Rows(read.reshape(len(image), layer.groups, -1).transpose(0, 1), targets[at].double())


def _positions_last(layer: Layer, value: Tensor) -> Tensor:
    """A value as batch x channels x positions; all axes before the channels are the batch."""
    if layer.convolution:
        return value if layer.axis else value[None]
    return value.reshape(-1, value.shape[-1], 1)


def _windows(op: Operation, layer: Layer, source: Tensor) -> Tensor:
    """What every output position reads: batch x channels x output positions x taps, a view where possible."""
    value = _positions_last(layer, source)
    if not layer.convolution:
        return value
    dimensions = len(layer.taps)
    stride, dilation = (_each(op.get(name, 1), dimensions) for name in ("stride", "dilation"))
    reach = [step * (taps - 1) for step, taps in zip(dilation, layer.taps, strict=True)]
    if layer.transposed:
        value = _spread(value, stride)
        padding, extra = (_each(op.get(name, 0), dimensions) for name in ("padding", "output_padding"))
        pads = [(span - pad, span - pad + more) for span, pad, more in zip(reach, padding, extra, strict=True)]
        stride = [1] * dimensions
    else:
        pads = _pads(op.get("padding", 0), reach)
    value = F.pad(value, [amount for pair in reversed(pads) for amount in pair])
    for axis, (span, step) in enumerate(zip(reach, stride, strict=True)):
        value = value.unfold(2 + axis, span + 1, step)
    return value[_every(dilation)]


def _pads(padding: Any, reach: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and after, by axis."""
    if padding == "valid":
        return [(0, 0)] * len(reach)
    if padding == "same":
        return [(span // 2, span - span // 2) for span in reach]
    return [(pad, pad) for pad in _each(padding, len(reach))]


def _each(value: Any, dimensions: int) -> list[int]:
    """A size for every axis, whether one is given or all are."""
    sizes = [value] if isinstance(value, int) else list(value)
    return sizes * dimensions if len(sizes) == 1 else sizes


def _spread(value: Tensor, stride: Sequence[int]) -> Tensor:
    """Zeros between the positions, so that they lie `stride` apart."""
    sizes = [step * (size - 1) + 1 for size, step in zip(value.shape[2:], stride, strict=True)]
    spread = value.new_zeros(*value.shape[:2], *sizes)
    spread[_every(stride)] = value
    return spread


def _every(steps: Sequence[int]) -> tuple[Any, ...]:
    """Indexes the last axes, each in its own steps."""
    return (..., *(slice(None, None, step) for step in steps))


def _unraveled(place: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    return torch.unravel_index(place, tuple(sizes))
