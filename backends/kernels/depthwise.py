"""Depthwise convolution: every channel by itself, so a vector of channels at a time and no reduction over
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border
from .tiles import Machine

__all__ = ["DepthwiseSpec", "depthwise_columns", "weights_stay"]


_UNDER_WAY = 5
"""Registers for pixels and the epilogue's literals."""
_TILE = 8
"""What starting a tile costs, in products."""


@dataclass(frozen=True)
class DepthwiseSpec:
    """A depthwise convolution.

    Attributes:
        columns: outputs of a row that are kept in registers.
        weights_stay: whether all weights of a block stay in registers beside them, for a whole row.

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

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result)``; weights are ``(blocks, KH, KW,
        lanes)``.
        """
        height, width = self.kernel
        slots = self.result.blocks * self.result.lanes
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", (self.source.size,), "float32"),
            ("weights", (slots * height * width,), "float32"),
            ("bias", (slots,), "float32"),
            *self.epilogue.arguments(),
            ("result", (self.result.size,), "float32"),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


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
    with loops.parallel(view.batch * view.blocks * view.height * outer) as work, loops.serial(inner) as turn:
        line = work // outer
        image = line // (view.blocks * view.height) if view.batch > 1 else 0
        block, row = (line // view.height) % view.blocks, line % view.height
        left = loops.tile_start(turn if spec.weights_stay else work % outer, spec.columns, view.width)
        sums = loops.local(spec.columns * lanes)
        with loops.unroll(spec.columns) as x:
            loops.store(sums, x * lanes, loops.load(bias, block * lanes, lanes), lanes)
        _window(spec, sums, source, weights, (image, block, row, left))
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
    with loops.serial(height) as kh, loops.unroll(width) as kw:
        weight = loops.load(weights, ((block * height + kh) * width + kw) * lanes, lanes)
        with loops.unroll(spec.columns) as x:
            at_row = row * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
            at_column = (left + x) * spec.stride[1] + kw * spec.dilation[1] - spec.padding[1]
            pixel = loops.load(source, spec.source.offset(image, block, at_row, at_column), lanes)
            loops.store(sums, x * lanes, loops.load(sums, x * lanes, lanes) + pixel * weight, lanes)
