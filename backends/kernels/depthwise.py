"""Depthwise convolution: every channel by itself, so a vector of channels at a time and no reduction over
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .epilogue import Epilogue
from .image import Slots, View, clear_border
from .integer_results import store_row
from .outside import window_taps
from .tiles import Machine

__all__ = ["DepthwiseSpec", "depthwise_columns", "depthwise_cycles", "weights_stay"]


_UNDER_WAY = 5
"""Registers for pixels and the epilogue's literals."""
_TILE = 8
"""What starting a tile costs, in products."""
_MOST_PARTIAL = 81
"""Products that may be added in a narrower type than the sums have, see `DType.partial`."""


@dataclass(frozen=True)
class DepthwiseSpec:
    """A depthwise convolution.

    Attributes:
        columns: outputs of a row that are kept in registers.
        weights_stay: whether all weights of a block stay in registers beside them, for a whole row.
        skips: whether rows of windows outside of the image are left out; columns never are.

    The rest is as in ConvolutionSpec.
    """

    family: ClassVar[str] = "depthwise"

    source: View
    result: View
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    columns: int
    epilogue: Epilogue
    weights_stay: bool = True
    skips: tuple[bool, bool] = (False, False)

    @property
    def accumulator(self) -> str:
        """The type of its sums, and of the bias that they begin with."""
        return DTYPES[self.source.dtype].accumulator

    @property
    def factor(self) -> str:
        """The type of its weights in memory. Those of codes have a sign, even where the codes have none."""
        return "int8" if self.source.is_code else self.source.dtype

    @property
    def partial(self) -> str:
        """The type that the products of a window are added in, to the bias."""
        narrow = DTYPES[self.source.dtype].partial
        return narrow if narrow and self.kernel[0] * self.kernel[1] <= _MOST_PARTIAL else self.accumulator

    @property
    def workspace(self) -> tuple[int, ...]:
        """It needs none."""
        return ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined, unused lanes included."""
        result = self.result
        return result.batch * result.height * result.width * self.weight_bytes // self.source.element_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return self.source.element_bytes * self.result.blocks * self.result.lanes * self.kernel[0] * self.kernel[1]

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights ``(blocks, KH, KW, lanes)`` and bias, both by the slots of the source."""
        weights = convolution.weights
        height, width = self.kernel
        blocks, lanes = self.source.blocks, self.source.lanes
        kernel = np.zeros((blocks * lanes, height, width), self.factor)
        kernel[slots] = weights.kernel[:, 0]
        bias = np.zeros(blocks * lanes, self.accumulator)
        bias[slots] = weights.bias
        blocked = kernel.reshape(blocks, lanes, height, width).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(blocked).reshape(-1), bias

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        result = self.result
        pixels = result.batch * result.height * result.width
        return depthwise_cycles(machine, result.blocks, pixels, self.kernel[0] * self.kernel[1])

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result)``; weights are ``(blocks, KH, KW,
        lanes)``.
        """
        arguments = [
            ("source", *self.source.argument),
            *self.packed,
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, self.write)

    @property
    def packed(self) -> list[tuple[str, Sequence[int], str]]:
        """Kernel arguments for what `pack` gives."""
        slots = self.result.blocks * self.result.lanes
        return [
            ("weights", (slots * self.kernel[0] * self.kernel[1],), self.factor),
            ("bias", (slots,), self.accumulator),
        ]

    def write(self, *buffers: loops.Buffer) -> None:
        """The loops of the function, on its arguments."""
        _body(self, *buffers)


def depthwise_cycles(machine: Machine, blocks: int, pixels: int, taps: int) -> float:
    """For every vector of outputs, its products, and a load and a store."""
    return blocks * pixels * (taps / machine.rate + 3) + 20 * blocks


def depthwise_columns(machine: Machine, width: int, stride: int, taps: int) -> int:
    """Outputs of a row in registers: as many as leave half of the registers for pixels and weights, such that few are
    computed twice at the end of a row.

    With a stride, neighbouring outputs share fewer pixels, which need more registers where pixels are loaded ahead.
    """
    apart = stride if machine.pixel_registers else 1
    most = max(2, machine.registers // 2 // apart)
    return min(range(min(most, width), 0, -1), key=lambda columns: -(-width // columns) * (columns * taps + _TILE))


def weights_stay(machine: Machine, columns: int, taps: int) -> bool:
    """Whether there are registers for the weights of a window beside so many outputs and what is under way.

    In-order cores have more under way, because LLVM writes two turns of the loop out for them.
    """
    return not machine.in_order and taps + columns + _UNDER_WAY <= machine.registers


def _body(
    spec: DepthwiseSpec, source: loops.Buffer, weights: loops.Buffer, bias: loops.Buffer, *rest: loops.Buffer
) -> None:
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.result, spec.result.lanes
    clear_border(result, view)
    tiles = -(-view.width // spec.columns)
    # What does not change from tile to tile is loaded before the loop over them, and spilled if it is too much.
    # A loop over tiles of all rows and blocks has nothing of the kind.
    inner = tiles if spec.weights_stay else 1
    outer = tiles // inner
    with view.lines(outer) as (image, block, row, part), loops.serial(inner) as turn:
        left = loops.tile_start(turn if spec.weights_stay else part, spec.columns, view.width)
        sums = loops.local(spec.columns * lanes, spec.partial)
        with loops.unroll(spec.columns) as x:
            loops.store(sums, x * lanes, loops.load(bias, block * lanes, lanes), lanes)
        _window(spec, sums, source, weights, (image, block, row, left))
        if view.is_code and lanes > 1:
            values = [loops.load(sums, x * lanes, lanes) for x in range(spec.columns)]
            place = (image, block, row, left)
            store_row(values, spec.epilogue, leaves, result, view, place, spec.epilogue.dot)
        else:
            with loops.unroll(spec.columns) as x:
                position = (image, block, row, left + x)
                value = spec.epilogue.value(loops.load(sums, x * lanes, lanes), leaves, position, lanes)
                loops.store(result, view.offset(*position), value, lanes)


def _window(
    spec: DepthwiseSpec,
    sums: loops.Buffer,
    source: loops.Buffer,
    weights: loops.Buffer,
    position: tuple[Any, Any, Any, Any],
) -> None:
    """Adds all products; a row of the window is written out, so that neighbouring outputs share their
    loads.
    """
    image, block, row, left = position
    height, width = spec.kernel
    lanes = spec.result.lanes
    with window_taps(spec, 0, row) as kh, loops.unroll(width) as kw:
        weight = loops.load(weights, ((block * height + kh) * width + kw) * lanes, lanes)
        weight = loops.converted(weight, spec.partial, lanes)
        with loops.unroll(spec.columns) as x:
            at_row = row * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
            at_column = (left + x) * spec.stride[1] + kw * spec.dilation[1] - spec.padding[1]
            pixel = loops.load(source, spec.source.offset(image, block, at_row, at_column), lanes)
            pixel = loops.converted(pixel, spec.partial, lanes)
            loops.store(sums, x * lanes, loops.load(sums, x * lanes, lanes) + pixel * weight, lanes)
