"""Direct convolution over channel-blocked images: register tiles of channel blocks times pixels.

Serves 3x3 and larger, 1x1 (as pixels in a row), linear layers (one pixel) and grouped convolutions (a band
of input blocks for every tile of output blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution, Weights
from . import loops
from .epilogue import Epilogue
from .image import Slots, View, clear_border
from .integer_results import store_row
from .outside import window_taps
from .panels import by_block, groups_of
from .tiles import Machine, Tile, streamed_cycles, tile_cycles

__all__ = ["ConvolutionSpec", "input_bands", "outputs_of", "panel_rows", "row_parts"]


_MOST_PARTIAL = 144
"""Products that are added in a narrower type than the sums have, see `DType.partial`; those of a block of channels at least."""
_IDLE = 0.05
"""Share of the cores' time that may be lost because their work is not equal."""


@dataclass(frozen=True)
class ConvolutionSpec:
    """One convolution, with everything its code depends on.

    Attributes:
        source: the input; its halo covers the padding.
        result: the output.
        blocks: input blocks read for every output tile, the last with `rest` channels (0: all of them).
        banded: whether every output tile starts at an input block of its own, from a table.
        kernel, stride, dilation, padding: height then width; padding is above and to the left.
        tile: what is kept in registers.
        by_lane: whether a pixel's input channels are loaded as a vector, and its lanes taken one after the other.
        one_loop: whether one loop goes over all tiles, also those of a row. What does not change along a row, LLVM loads
            before a loop of its own: of a short sum all weights, which may be more than there are registers.
        cores: that share the tiles, as evenly as can be.
        skips: whether rows and columns of windows outside of the image are left out. Tiles are one row high then for rows.
    """

    family: ClassVar[str] = "convolution"

    source: View
    result: View
    blocks: int
    rest: int
    banded: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    tile: Tile
    epilogue: Epilogue
    by_lane: bool = False
    one_loop: bool = False
    cores: int = 1
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
        """The type that products are added in, some blocks at a time."""
        return DTYPES[self.source.dtype].partial or self.accumulator

    @property
    def added(self) -> int:
        """Input blocks whose products are added in `partial`: all of them where that is the type of the sums."""
        if self.partial == self.accumulator:
            return self.blocks
        return max(1, _MOST_PARTIAL // (self.source.lanes * self.kernel[0] * self.kernel[1]))

    @property
    def tiles(self) -> int:
        """Tiles of output blocks."""
        return -(-self.result.blocks // self.tile.blocks)

    @property
    def workspace(self) -> tuple[int, ...]:
        """It needs none."""
        return ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined, unused lanes included."""
        result = self.result
        return result.batch * result.blocks * result.height * result.width * result.lanes * panel_rows(self)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return self.source.element_bytes * self.tiles * panel_rows(self) * self.tile.blocks * self.result.lanes

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights as ``(tiles, input block, KH, KW, input channel, tile.blocks * lanes)``, bias by output slot, and for a
        banded kernel each tile's first input block.
        """
        weights = convolution.weights
        lanes, lanes_in = self.result.lanes, self.source.lanes
        outputs, inputs, height, width = weights.kernel.shape
        per_group = outputs // convolution.groups
        row = self.tile.blocks * lanes
        starts = np.zeros(self.tiles, "int64")
        if self.banded:
            starts = np.minimum(input_bands(self, convolution, slots)[:, 0], self.source.blocks - self.blocks)
        panels = np.zeros((self.tiles, panel_rows(self) * row), self.factor)
        for tile in range(self.tiles):
            first, last = outputs_of(self, weights, tile)
            panel = np.zeros((self.blocks * lanes_in, height, width, row), self.factor)
            for group in groups_of(first, last, convolution):
                low, high = max(first, group * per_group), min(last, (group + 1) * per_group)
                rows = slots[group * inputs : (group + 1) * inputs] - int(starts[tile]) * lanes_in
                panel[rows, :, :, low - first : high - first] = weights.kernel[low:high].transpose(1, 2, 3, 0)
            panels[tile] = by_block(panel.reshape(self.blocks, lanes_in, height, width, row), self.rest)
        bias = np.zeros(self.result.blocks * lanes, self.accumulator)
        bias[:outputs] = weights.bias
        return (panels.reshape(-1), bias, *([starts.astype("int32")] if self.banded else []))

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: the inner loop's vector products and loads, and weights from memory."""
        result, rows = self.result, panel_rows(self)
        machine = machine.one_by_one(self.source.dtype)
        tiles = tile_cycles(self.tile, machine, result.blocks, result.height, result.width, rows)
        return streamed_cycles(machine, result.batch * tiles, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias[, starts], leaves..., result)``.

        Weights are ``(tiles, input block, KH, KW, input channel, tile.blocks * lanes)``, read once, front to
        back.
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
        row = self.tile.blocks * self.result.lanes
        return [
            ("weights", (self.tiles * panel_rows(self) * row,), self.factor),
            ("bias", (self.result.blocks * self.result.lanes,), self.accumulator),
            *([("starts", (self.tiles,), "int32")] if self.banded else []),
        ]

    def write(self, *buffers: loops.Buffer) -> None:
        """The loops of the function, on its arguments."""
        _body(self, *buffers)


def panel_rows(spec: ConvolutionSpec) -> int:
    """Weight vectors' rows for one tile of output blocks; a row is ``tile.blocks * lanes`` weights."""
    channels = spec.blocks * spec.source.lanes if not spec.rest else (spec.blocks - 1) * spec.source.lanes + spec.rest
    return channels * spec.kernel[0] * spec.kernel[1]


def input_bands(spec: ConvolutionSpec, convolution: Convolution, slots: Slots) -> Slots:
    """For every tile of output blocks the first and last input block that its groups read: ``(tiles, 2)``."""
    inputs = convolution.weights.kernel.shape[1]
    bands = []
    for tile in range(spec.tiles):
        groups = groups_of(*outputs_of(spec, convolution.weights, tile), convolution)
        used = slots[groups.start * inputs : groups.stop * inputs] // spec.source.lanes
        bands.append((int(used.min()), int(used.max())))
    return np.array(bands, dtype="int64")


def outputs_of(spec: ConvolutionSpec, weights: Weights, tile: int) -> tuple[int, int]:
    """The first output channel of a tile, and the one after its last."""
    blocks, lanes = spec.tile.blocks, spec.result.lanes
    first = min(tile * blocks, max(0, spec.result.blocks - blocks)) * lanes
    return first, min(weights.kernel.shape[0], first + blocks * lanes)


def row_parts(spec: ConvolutionSpec) -> int:
    """Equal parts of a row of tiles that are work by themselves: the fewest that keep the cores busy alike.

    Most often the rows and blocks are many and need no parts. Pixels in a row with few blocks would be work for one core.
    """
    view, tile = spec.result, spec.tile
    lines = view.batch * spec.tiles * -(-view.height // tile.rows)
    columns = -(-view.width // tile.columns)

    def idle(parts: int) -> float:
        work = lines * parts
        return -(-work // spec.cores) * spec.cores / work - 1.0

    parts = [count for count in range(1, columns + 1) if columns % count == 0]
    return next((count for count in parts if idle(count) <= _IDLE), min(parts, key=idle))


def _body(
    spec: ConvolutionSpec,
    source: loops.Buffer,
    weights: loops.Buffer,
    bias: loops.Buffer,
    *rest: loops.Buffer,
) -> None:
    starts, leaves, result = (rest[0] if spec.banded else None), rest[int(spec.banded) : -1], rest[-1]
    clear_border(result, spec.result)
    tile, view = spec.tile, spec.result
    row_tiles, column_tiles = -(-view.height // tile.rows), -(-view.width // tile.columns)
    outer = column_tiles if spec.one_loop else row_parts(spec)
    inner = column_tiles // outer
    with loops.parallel(view.batch * spec.tiles * row_tiles * outer) as work:
        line = work // outer
        image = line // (spec.tiles * row_tiles) if view.batch > 1 else 0
        panel = (line // row_tiles) % spec.tiles
        block = loops.tile_start(panel, tile.blocks, view.blocks)
        top = loops.tile_start(line % row_tiles, tile.rows, view.height)
        first = loops.table(starts, panel) if spec.banded else 0
        with loops.serial(inner) as turn:
            left = loops.tile_start(work % outer * inner + turn, tile.columns, view.width)
            at_once = spec.added >= spec.blocks
            sums = loops.local(tile.blocks * tile.pixels * view.lanes, spec.partial if at_once else spec.accumulator)
            _start(spec, sums, bias, block)
            operands = _Operands(source, weights, (image, first, top, left), panel)
            if at_once:
                _reduce(spec, sums, operands, 0, spec.blocks)
            else:
                _reduce_in_parts(spec, sums, operands)
            _finish(spec, sums, leaves, result, (image, block, top, left))


def _slot(spec: ConvolutionSpec, block: Any, row: Any, column: Any) -> Any:
    return ((block * spec.tile.rows + row) * spec.tile.columns + column) * spec.result.lanes


def _start(spec: ConvolutionSpec, sums: loops.Buffer, bias: loops.Buffer, block: Any) -> None:
    lanes = spec.result.lanes
    with loops.unroll(spec.tile.blocks) as b, loops.unroll(spec.tile.rows) as y, loops.unroll(spec.tile.columns) as x:
        loops.store(sums, _slot(spec, b, y, x), loops.load(bias, (block + b) * lanes, lanes), lanes)


@dataclass(frozen=True)
class _Operands:
    """What a tile of outputs is computed of: `corner` is the image, its first input block, and the first row and column."""

    source: loops.Buffer
    weights: loops.Buffer
    corner: tuple[Any, Any, Any, Any]
    panel: Any


def _reduce_in_parts(spec: ConvolutionSpec, sums: loops.Buffer, operands: _Operands) -> None:
    """Some blocks at a time, whose products are added in a narrower type."""
    size = spec.tile.blocks * spec.tile.pixels
    lanes = spec.result.lanes

    def part(first: Any, count: int) -> None:
        some = loops.local(size * lanes, spec.partial)
        with loops.unroll(size) as slot:
            loops.store(some, slot * lanes, loops.number(0.0, lanes, spec.partial), lanes)
        _reduce(spec, some, operands, first, count)
        with loops.unroll(size) as slot:
            more = loops.converted(loops.load(some, slot * lanes, lanes), spec.accumulator, lanes)
            loops.store(sums, slot * lanes, loops.load(sums, slot * lanes, lanes) + more, lanes)

    # The last part has the last block, which may have fewer channels than the others.
    parts = -(-spec.blocks // spec.added) - 1
    with loops.serial(parts) as turn:
        part(turn * spec.added, spec.added)
    part(parts * spec.added, spec.blocks - parts * spec.added)


def _reduce(spec: ConvolutionSpec, sums: loops.Buffer, operands: _Operands, first: Any, count: int) -> None:
    """`count` input blocks from `first` on, then, if they end with the last, partial one, its channels."""
    ends = isinstance(first, int) and first + count == spec.blocks
    rest = spec.rest if ends else 0
    whole = count - bool(rest)
    lanes_in = spec.source.lanes
    taps = _taps_by_lane if spec.by_lane else _taps
    origin = operands.panel * (panel_rows(spec) * spec.tile.blocks * spec.result.lanes)
    if whole:
        with loops.serial(whole) as block:
            taps(spec, sums, operands, first + block, lanes_in, (origin, first + block))
    if rest:
        window = spec.kernel[0] * spec.kernel[1]
        last = first + whole
        rest_origin = origin + last * lanes_in * window * spec.tile.blocks * spec.result.lanes
        taps(spec, sums, operands, last, rest, (rest_origin, 0))


def _taps(
    spec: ConvolutionSpec, sums: loops.Buffer, operands: _Operands, block: Any, channels: int, panel: tuple[Any, Any]
) -> None:
    image, first, top, left = operands.corner
    origin, panel_block = panel
    row = spec.tile.blocks * spec.result.lanes
    height, width = spec.kernel
    if spec.dilation[1] * spec.source.column == channels:
        # Neighbouring pixels follow each other: columns of the window are just more channels. One longer
        # loop, which LLVM does not write out; doing so makes it load weights ahead of registers to keep
        # them in.
        width, channels = 1, width * channels
    columns = window_taps(spec, 1, left, spec.tile.columns) if width == spec.kernel[1] else loops.serial(width)
    with window_taps(spec, 0, top) as kh, columns as kw, loops.serial(channels) as channel:
        weight = origin + ((((panel_block * height) + kh) * width + kw) * channels + channel) * row
        with loops.unroll(spec.tile.rows) as y, loops.unroll(spec.tile.columns) as x:
            at_row = (top + y) * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
            at_column = (left + x) * spec.stride[1] + kw * spec.dilation[1] - spec.padding[1]
            element = spec.source.offset(image, first + block, at_row, at_column) + channel
            _multiply(spec, sums, loops.load(operands.source, element), operands.weights, weight, (y, x))


def _taps_by_lane(
    spec: ConvolutionSpec, sums: loops.Buffer, operands: _Operands, block: Any, channels: int, panel: tuple[Any, Any]
) -> None:
    """As `_taps`, with one load for all channels of a pixel: fewer instructions, and LLVM keeps a pixel for the columns
    of the window that share it.
    """
    image, first, top, left = operands.corner
    origin, panel_block = panel
    lanes = spec.source.lanes
    row = spec.tile.blocks * spec.result.lanes
    height, width = spec.kernel
    with window_taps(spec, 0, top) as kh, window_taps(spec, 1, left, spec.tile.columns) as kw:
        weight = origin + (((panel_block * height) + kh) * width + kw) * channels * row
        pixels = loops.local(spec.tile.pixels * lanes, spec.source.dtype)
        with loops.unroll(spec.tile.rows) as y, loops.unroll(spec.tile.columns) as x:
            at_row = (top + y) * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
            at_column = (left + x) * spec.stride[1] + kw * spec.dilation[1] - spec.padding[1]
            place = spec.source.offset(image, first + block, at_row, at_column)
            pixel = loops.load(operands.source, place, lanes)
            loops.store(pixels, (y * spec.tile.columns + x) * lanes, pixel, lanes)
        for channel in range(channels):
            with loops.unroll(spec.tile.rows) as y, loops.unroll(spec.tile.columns) as x:
                pixel = loops.load(pixels, (y * spec.tile.columns + x) * lanes, lanes)
                element = loops.lane(pixel, channel)
                _multiply(spec, sums, element, operands.weights, weight + channel * row, (y, x))


def _multiply(
    spec: ConvolutionSpec,
    sums: loops.Buffer,
    element: Any,
    weights: loops.Buffer,
    weight: Any,
    at: tuple[Any, Any],
) -> None:
    """One input element times the weight vectors of all blocks of the tile."""
    lanes = spec.result.lanes
    with loops.unroll(spec.tile.blocks) as b:
        slot = _slot(spec, b, *at)
        factors = loops.converted(loops.load(weights, weight + b * lanes, lanes), spec.partial, lanes)
        product = loops.broadcast(loops.converted(element, spec.partial), lanes) * factors
        loops.store(sums, slot, loops.load(sums, slot, lanes) + product, lanes)


def _finish(
    spec: ConvolutionSpec,
    sums: loops.Buffer,
    leaves: Sequence[loops.Buffer],
    result: loops.Buffer,
    corner: tuple[Any, Any, Any, Any],
) -> None:
    image, block, top, left = corner
    lanes = spec.result.lanes
    if spec.result.is_code and lanes > 1:
        for b, y in product(range(spec.tile.blocks), range(spec.tile.rows)):
            row = [loops.load(sums, _slot(spec, b, y, x), lanes) for x in range(spec.tile.columns)]
            place = (image, block + b, top + y, left)
            store_row(row, spec.epilogue, leaves, result, spec.result, place, spec.epilogue.dot)
        return
    with loops.unroll(spec.tile.blocks) as b, loops.unroll(spec.tile.rows) as y, loops.unroll(spec.tile.columns) as x:
        position = (image, block + b, top + y, left + x)
        value = spec.epilogue.value(loops.load(sums, _slot(spec, b, y, x), lanes), leaves, position, lanes)
        loops.store(result, spec.result.offset(*position), value, lanes)
