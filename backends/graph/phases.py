"""Transposed convolutions as convolutions: one for each phase of their outputs, which multiplies by no zero.

An output at ``y`` takes the taps ``k`` with ``y + padding - k * dilation`` a multiple of the stride, and reads pixel
``(y + padding - k * dilation) / stride``. So outputs a stride apart have the same taps, and are a convolution of stride 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from .nodes import Convolution, Node, Transposed, Weights

__all__ = ["Phase", "has_kernels", "margins_of", "phases_of"]

_MOST = 16
"""Phases of a layer whose code is written out."""


@dataclass(frozen=True, eq=False)
class Phase:
    """Outputs a stride apart.

    Attributes:
        first: row and column of the first of them.
        size: how many there are, in rows and columns.
        taps: the rows and columns of the kernel that they take, the last one first.
        convolution: that gives them, of stride 1, by these.
    """

    first: tuple[int, int]
    size: tuple[int, int]
    taps: tuple[tuple[int, ...], tuple[int, ...]]
    convolution: Convolution


def has_kernels(transposed: Transposed) -> bool:
    """Whether every phase has a tap, and there are not so many that their code is too much."""
    window = transposed.weights.kernel.shape[2:]
    for extent, stride, dilation in zip(window, transposed.stride, transposed.dilation, strict=True):
        if len({tap * dilation % stride for tap in range(extent)}) < stride:
            return False
    return math.prod(transposed.stride) <= _MOST


@dataclass(frozen=True)
class _Taps:
    """Of one axis and phase: which taps of the kernel, from the last to the first, and how their convolution reads."""

    first: int
    count: int
    taps: tuple[int, ...]
    dilation: int
    before: int
    after: int


def phases_of(node: Node) -> tuple[Phase, ...]:
    """Of a node ``transposed``, row by row."""
    transposed = node.detail_as(Transposed)
    found = []
    for rows, columns in product(*_axes(node)):
        convolution = Convolution(
            Weights(transposed.weights.kernel[:, :, rows.taps][:, :, :, columns.taps], transposed.weights.bias),
            padding=(rows.before, columns.before, rows.after, columns.after),
            dilation=(rows.dilation, columns.dilation),
            groups=transposed.groups,
        )
        first, size = (rows.first, columns.first), (rows.count, columns.count)
        found.append(Phase(first, size, (rows.taps, columns.taps), convolution))
    return tuple(found)


def margins_of(node: Node) -> tuple[int, int, int, int]:
    """How far the phases of a node read beyond its input: above, left, below, right."""
    rows, columns = _axes(node)
    before, after = [
        [max(getattr(taps, side) for taps in axis) for axis in (rows, columns)] for side in ("before", "after")
    ]
    return before[0], before[1], after[0], after[1]


def _axes(node: Node) -> tuple[list[_Taps], list[_Taps]]:
    """The phases of rows, and those of columns."""
    transposed = node.detail_as(Transposed)
    outputs, inputs = node.image_shape[2:], node.inputs[0].image_shape[2:]
    rows, columns = (list(_taps_of(transposed, axis, inputs[axis], outputs[axis])) for axis in (0, 1))
    return rows, columns


def _taps_of(transposed: Transposed, axis: int, inputs: int, outputs: int) -> Iterator[_Taps]:
    extent, stride = transposed.weights.kernel.shape[2 + axis], transposed.stride[axis]
    dilation, padding = transposed.dilation[axis], transposed.padding[axis]
    apart = stride // math.gcd(stride, dilation)
    for first in range(min(stride, outputs)):
        phase = (first + padding) % stride
        taps = [tap for tap in range(extent) if tap * dilation % stride == phase]
        count = -(-(outputs - first) // stride)
        step = apart * dilation // stride
        # The first output reads, by its first tap, the pixel `near`, and by each further tap one `step` before that.
        near = (first + padding - taps[0] * dilation) // stride
        before = (len(taps) - 1) * step - near
        after = near + count - inputs
        yield _Taps(first, count, tuple(taps[::-1]), step if len(taps) > 1 else 1, before, after)
