"""Depthwise convolution of codes two products at a time, over images in planes (`words`).

A row of the window is one word of neighbouring pixels: its first and third are a pair, which two weights are for, and the
third weight is multiplied by one number of the other pair. Moved on by a pixel, the pairs change places, so that the same word
serves two neighbouring outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .depthwise import DepthwiseSpec
from .image import Slots, clear_border
from .tiles import Machine
from .words import CODES, DOT, add_pair, add_product, kept, pairs, word

__all__ = ["PairedDepthwiseSpec", "paired_depthwise"]

_MOST_COLUMNS = 3
"""Of a window: a word has one pixel more, for the next output."""
_MOST_ROWS = 3
"""Of a window, whose weights there are registers for."""
_WIDENED, _PRODUCTS = 3.0, 2.0
"""Instructions that load a word and make pairs of it, and that multiply a row of the window."""
_FINISH, _BEGIN = 14.0, 40.0
"""Instructions of an output's way from sum to code, and of beginning a row of them."""


@dataclass(frozen=True)
class PairedDepthwiseSpec(DepthwiseSpec):
    """A depthwise convolution of codes; `columns` is 2 where a word serves two outputs."""

    family: ClassVar[str] = "paired_depthwise"

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined."""
        view = self.result
        return view.batch * view.blocks * view.height * view.width * self.kernel[0] * self.kernel[1]

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return CODES * self.result.blocks * self.kernel[0]

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(channels, KH, 4)``, zeros behind those of a row, and bias."""
        height, width = self.kernel
        packed = np.zeros((self.source.blocks, height, CODES), self.factor)
        packed[slots, :, :width] = convolution.weights.kernel[:, 0]
        bias = np.zeros(self.source.blocks, self.accumulator)
        bias[slots] = convolution.weights.bias
        return packed.reshape(-1), bias

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        view = self.result
        tile = self.kernel[0] * (_WIDENED + _PRODUCTS * self.columns) + _FINISH * self.columns
        return view.batch * view.blocks * view.height * (-(-view.width // self.columns) * tile + _BEGIN)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result)``."""
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.weight_bytes,), self.factor),
            ("bias", (self.result.blocks,), self.accumulator),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def paired_depthwise(spec: DepthwiseSpec, machine: Machine) -> PairedDepthwiseSpec | None:
    """The layer with products of pairs; None where they do not apply: to large windows, and to pixels apart from each other."""
    source = spec.source
    if (
        machine.dot != DOT
        or source.dtype != machine.codes
        or not source.lanes == source.column == spec.result.lanes == 1
    ):
        return None
    if spec.kernel[0] > _MOST_ROWS or spec.kernel[1] > _MOST_COLUMNS or spec.dilation[1] != 1:
        return None
    values = {field.name: getattr(spec, field.name) for field in fields(DepthwiseSpec)}
    made = replace(PairedDepthwiseSpec(**values), columns=min(spec.result.width, 2 if spec.stride[1] == 1 else 1))
    return made if _end(made) <= source.size else None


def _end(spec: PairedDepthwiseSpec) -> int:
    """Where in the source's buffer the last word ends."""
    source, result = spec.source, spec.result
    row = (result.height - 1) * spec.stride[0] + (spec.kernel[0] - 1) * spec.dilation[0] - spec.padding[0]
    column = (result.width - spec.columns) * spec.stride[1] - spec.padding[1]
    return int(source.offset(source.batch - 1, source.blocks - 1, row, column)) + CODES


def _body(
    spec: PairedDepthwiseSpec, source: loops.Buffer, weights: loops.Buffer, bias: loops.Buffer, *rest: loops.Buffer
) -> None:
    leaves, result, view = rest[:-1], rest[-1], spec.result
    clear_border(result, view)
    with view.planes() as (image, block):
        factors = [pairs(word(weights, (block * spec.kernel[0] + kh) * CODES)) for kh in range(spec.kernel[0])]
        start = kept(loops.load(bias, block))
        with loops.serial(view.height) as row, view.columns(spec.columns) as left:
            sums = _sums(spec, source, factors, start, (image, block, row, left))
            for x, total in enumerate(sums):
                position = (image, block, row, left + x)
                value = spec.epilogue.value(total, leaves, position, 1)
                loops.store(result, view.offset(*position), value)


def _sums(
    spec: PairedDepthwiseSpec,
    source: loops.Buffer,
    factors: Sequence[tuple[Any, Any]],
    start: Any,
    position: tuple[Any, Any, Any, Any],
) -> list[Any]:
    """Of neighbouring outputs, the first at `position`."""
    image, block, row, left = position
    sums = [start] * spec.columns
    for kh, (outer, middle) in enumerate(factors):
        at_row = row * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
        place = spec.source.offset(image, block, at_row, left * spec.stride[1] - spec.padding[1])
        first, second = pairs(word(source, place))
        # The middle of the first window is the second pixel, that of the next one the third.
        for x, (around, between) in enumerate([(first, second), (second, first)][: spec.columns]):
            sums[x] = add_product(add_pair(sums[x], outer, around), between, x == 1, middle)
    return [kept(total) for total in sums]
