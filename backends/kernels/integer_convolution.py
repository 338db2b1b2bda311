"""Direct convolution of codes with instructions that add several products at once to int32 sums.

As the direct kernel: register tiles of channel blocks times pixels. Channels of a pixel are taken in steps of four bytes; where
instructions take a lane of a vector, one load brings the steps of four neighbouring pixels, or four steps of one pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .codes import MOVED
from .convolution import ConvolutionSpec, input_bands, outputs_of, row_parts
from .image import Slots, View, clear_border
from .integer_products import Products, products_of, weights_of
from .integer_results import store_row
from .integer_tiles import dot_cycles, dot_tiles
from .panels import groups_of
from .tiles import Machine, streamed_cycles
from .words import DOT

__all__ = ["IntegerConvolutionSpec", "in_pairs", "integer_spec", "reading", "steps_of", "widen"]

_FOUR = 4
"""Steps in a vector of 128 bits."""
_SHORT_SUM = 16
"""Steps of an output that LLVM may write out, loading their weights before a loop."""


@dataclass(frozen=True)
class IntegerConvolutionSpec(ConvolutionSpec):
    """A convolution of codes.

    Attributes:
        dot: how products are added, as in `Machine.dot`.
        vectors: of weights for a step of a block of outputs, those that are not zero, rounded up to a size that layers share;
            0 where those are nearly all. Kernels that read all weights do not depend on it.
        moved: whether sums begin with `codes.MOVED`, which takes that none of them is larger than it may be.
    """

    family: ClassVar[str] = "integer_convolution"

    dot: str = ""
    vectors: int = 0
    moved: bool = False

    @property
    def biases(self) -> int:
        """How often the bias of a block lies in memory: once for every sum of a tile, where vector units have more to do than
        loads, and would copy it from register to register.
        """
        return self.tile.pixels if self.dot == "sdot" else 1

    @property
    def products(self) -> Products:
        return products_of(self.dot, self.result.lanes)

    @property
    def workspace(self) -> tuple[int, ...]:
        """The source in 16 bits, two to an element, where products are of those."""
        return (-(-self.source.size // 2),) if self.products.widened else ()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return self.tiles * steps_of(self) * self.tile.blocks * _FOUR * self.result.lanes

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights as ``(tiles, input block, KH, KW, step, tile.blocks, ...)`` as `Products.arranged` has the lanes and channels
        of a step, bias ``(blocks, biases, lanes)``, and for a banded kernel each tile's first input block.
        """
        starts = np.zeros(self.tiles, "int64")
        if self.banded:
            starts = np.minimum(input_bands(self, convolution, slots)[:, 0], self.source.blocks - self.blocks)
        panels = [self._panel(convolution, slots, tile, int(starts[tile])) for tile in range(self.tiles)]
        bias = np.full(self.result.blocks * self.result.lanes, MOVED if self.moved else 0, self.accumulator)
        bias[: len(convolution.weights.bias)] += np.asarray(convolution.weights.bias, self.accumulator)
        bias = np.repeat(bias.reshape(-1, 1, self.result.lanes), self.biases, axis=1).reshape(-1)
        return (np.concatenate(panels), bias, *([starts.astype("int32")] if self.banded else []))

    def _panel(self, convolution: Convolution, slots: Slots, tile: int, start: int) -> Array:
        """The weights of one tile, whose input begins at block `start`."""
        weights, products, lanes_in = convolution.weights.kernel, self.products, self.source.lanes
        outputs, inputs, height, width = weights.shape
        blocks, lanes, per_group = self.tile.blocks, self.result.lanes, outputs // convolution.groups
        first, last = outputs_of(self, convolution.weights, tile)
        panel = np.zeros((blocks * lanes, self.blocks * lanes_in, height, width), products.weights)
        for group in groups_of(first, last, convolution):
            low, high = max(first, group * per_group), min(last, (group + 1) * per_group)
            columns = slots[group * inputs : (group + 1) * inputs] - start * lanes_in
            panel[low - first : high - first, columns] = weights[low:high]
        steps = lanes_in // products.channels
        split = panel.reshape(blocks, lanes, self.blocks, steps, products.channels, height, width)
        ordered = split.transpose(2, 5, 6, 3, 0, 1, 4)  # Input block, window, step, block, lane, channel.
        whole = self.blocks - bool(self.rest)
        parts = [ordered[:whole], ordered[whole:, :, :, : -(-self.rest // products.channels)]]
        return np.concatenate([weights_of(part, products) for part in parts])

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        compute = self.result.batch * dot_cycles(self, self.tile, self.dot, machine, steps_of(self))
        return streamed_cycles(machine, compute, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias[, starts], leaves..., result[, workspace])``."""
        products = self.products
        weights = self.weight_bytes * products.channels // _FOUR
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (weights,), products.weights),
            ("bias", (self.result.blocks * self.biases * self.result.lanes,), self.accumulator),
        ]
        if self.banded:
            arguments.append(("starts", (self.tiles,), "int32"))
        arguments += [*self.epilogue.arguments(), ("result", *self.result.argument)]
        arguments += [("workspace", (size,), self.accumulator) for size in self.workspace]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def integer_spec(spec: ConvolutionSpec, machine: Machine) -> IntegerConvolutionSpec | None:
    """The layer with the machine's sums of products, its best tile by the estimate; None where they do not apply."""
    source, result = spec.source, spec.result
    lanes = machine.lanes(source.dtype)
    if machine.dot in ("", DOT) or source.dtype != machine.codes or not source.lanes == result.lanes == lanes:
        return None
    values = {field.name: getattr(spec, field.name) for field in fields(ConvolutionSpec)}
    made = IntegerConvolutionSpec(**values, dot=machine.dot)
    steps = steps_of(made)
    tile = dot_tiles(made, machine.dot, machine, steps)[0]
    return replace(made, tile=tile, one_loop=steps <= _SHORT_SUM and not made.products.by_lane)


def steps_of(spec: IntegerConvolutionSpec) -> int:
    """Steps of an output: the last block of the input may have fewer than the others."""
    lanes, channels = spec.source.lanes, spec.products.channels
    whole = spec.blocks - bool(spec.rest)
    return (whole * (lanes // channels) + -(-spec.rest // channels)) * spec.kernel[0] * spec.kernel[1]


def reading(spec: IntegerConvolutionSpec) -> Literal["neighbours", "channels", "spread"]:
    """How pixels become factors of instructions that take a lane: four neighbours at a time, four blocks of an image of one
    pixel, or one by one where four are not beside each other, or the last ones not inside of the buffer.
    """
    source, stride = spec.source, spec.stride
    if spec.kernel == (1, 1) and source.block == source.lanes:
        return "channels"
    reach = (spec.tile.columns - 1) * stride[1] // _FOUR * _FOUR
    row, column = (
        (extent - tile) * stride[axis] + (spec.kernel[axis] - 1) * spec.dilation[axis] - spec.padding[axis]
        for axis, (extent, tile) in enumerate(((spec.result.height, 1), (spec.result.width, spec.tile.columns)))
    )
    last = source.offset(source.batch - 1, source.blocks - 1, row, column + reach)
    return "neighbours" if source.column == source.lanes and last + 4 * _FOUR <= source.size else "spread"


def _body(
    spec: IntegerConvolutionSpec,
    source: loops.Buffer,
    weights: loops.Buffer,
    bias: loops.Buffer,
    *rest: loops.Buffer,
) -> None:
    starts, rest = (rest[0], rest[1:]) if spec.banded else (None, rest)
    if spec.workspace:
        *leaves, result, workspace = rest
        widen(spec.source, source, workspace)
        source, spec = workspace, replace(spec, source=in_pairs(spec.source))
    else:
        *leaves, result = rest
    clear_border(result, spec.result)
    tile, view = spec.tile, spec.result
    row_tiles, column_tiles = -(-view.height // tile.rows), -(-view.width // tile.columns)
    parts = column_tiles if spec.one_loop else row_parts(spec)
    inner = column_tiles // parts
    with loops.parallel(view.batch * spec.tiles * row_tiles * parts) as work:
        line = work // parts
        image = line // (spec.tiles * row_tiles) if view.batch > 1 else 0
        panel = (line // row_tiles) % spec.tiles
        block = loops.tile_start(panel, tile.blocks, view.blocks)
        top = loops.tile_start(line % row_tiles, tile.rows, view.height)
        first = loops.table(starts, panel) if spec.banded else 0
        with loops.serial(inner) as turn:
            left = loops.tile_start(work % parts * inner + turn, tile.columns, view.width)
            work_tile = _TileOfWork(spec, source, weights, (image, first, top, left), panel)
            work_tile.start(bias, block)
            work_tile.reduce()
            for b in range(tile.blocks):
                for y in range(tile.rows):
                    row = [work_tile.sum(b, y, x) for x in range(tile.columns)]
                    place = (image, block + b, top + y, left)
                    store_row(row, spec.epilogue, leaves, result, view, place, spec.dot, spec.moved)


def widen(view: View, source: loops.Buffer, workspace: loops.Buffer) -> None:
    """All of the source as int16, two to an element of the workspace."""
    count = 2 * view.lanes if view.size >= 2 * view.lanes else view.lanes
    with loops.parallel(-(-view.size // count)) as turn:
        place = loops.tile_start(turn, count, view.size)
        wide = tirx.Cast(f"int16x{count}", loops.load(source, place, count))
        loops.store(workspace, place // 2, tirx.reinterpret(f"int32x{count // 2}", wide), count // 2)


def in_pairs(view: View) -> View:
    """Where elements of a view lie when two are one."""
    halves = {name: getattr(view, name) // 2 for name in ("start", "image", "block", "row", "column")}
    return replace(view, size=-(-view.size // 2), **halves)


class _TileOfWork:
    """The sums of one tile of outputs, and what they are made of: `corner` is the image, its first input block, and the first
    row and column of the outputs.
    """

    def __init__(
        self,
        spec: IntegerConvolutionSpec,
        source: loops.Buffer,
        weights: loops.Buffer,
        corner: tuple[Any, Any, Any, Any],
        panel: Any,
    ) -> None:
        self._spec, self._source, self._weights, self._corner = spec, source, weights, corner
        self._products = spec.products
        self._row = spec.tile.blocks * self._products.row
        self._origin = panel * (steps_of(spec) * self._row)
        self._places = [(y, x) for y in range(spec.tile.rows) for x in range(spec.tile.columns)]
        self._sums = loops.local(spec.tile.blocks * spec.tile.pixels * spec.result.lanes, spec.accumulator)

    def start(self, bias: loops.Buffer, block: Any) -> None:
        """Every sum begins with the bias of its channel."""
        lanes, biases = self._spec.result.lanes, self._spec.biases
        for b in range(self._spec.tile.blocks):
            for number, (y, x) in enumerate(self._places):
                place = ((block + b) * biases + number % biases) * lanes
                loops.store(self._sums, self._slot(b, y, x), loops.load(bias, place, lanes), lanes)

    def sum(self, block: int, row: int, column: int) -> Any:
        """The sums for a block of channels of one pixel."""
        return loops.load(self._sums, self._slot(block, row, column), self._spec.result.lanes)

    def reduce(self) -> None:
        """Adds all products."""
        spec, channels = self._spec, self._products.channels
        steps, rest = spec.source.lanes // channels, -(-spec.rest // channels)
        if self._products.by_lane:
            self._reduce_by_lane()
            return
        whole = spec.blocks - bool(rest)
        if whole:
            with loops.serial(whole) as block:
                self._window(block, steps, self._origin + block * self._block_weights(steps))
        if rest:
            self._window(whole, rest, self._origin + whole * self._block_weights(steps))

    def _reduce_by_lane(self) -> None:
        """A block of channels is one step, and the last one too, whatever of it is used."""
        spec, step = self._spec, self._block_weights(1)
        reads = reading(spec)
        fours = spec.blocks // _FOUR if reads == "channels" else 0
        if fours:
            with loops.serial(fours) as turn:
                self._channels(turn * _FOUR, self._origin + turn * (_FOUR * step))
        if left := spec.blocks - _FOUR * fours:
            window = self._neighbours if reads == "neighbours" else self._one_step
            with loops.serial(left) as turn:
                block = _FOUR * fours + turn
                window(block, self._origin + block * step)

    def _block_weights(self, steps: int) -> int:
        """Weights of an input block of so many steps."""
        return self._spec.kernel[0] * self._spec.kernel[1] * steps * self._row

    def _one_step(self, block: Any, origin: Any) -> None:
        self._window(block, 1, origin)

    def _window(self, block: Any, steps: int, origin: Any) -> None:
        """One input block, every step of a pixel spread over a vector by itself."""
        spec = self._spec
        height, width = spec.kernel
        step = 1 if self._products.widened else _FOUR
        if spec.dilation[1] * spec.source.column == steps * step:
            # Neighbouring pixels follow each other: columns of the window are just more steps.
            width, steps = 1, width * steps
        with loops.serial(height) as kh, loops.serial(width) as kw, loops.serial(steps) as k:
            weight = origin + ((kh * width + kw) * steps + k) * self._row
            for y, x in self._places:
                place = self._offset(block, y, kh, x * spec.stride[1], kw) + k * step
                pixel = self._products.spread(self._source, place)
                for b in range(spec.tile.blocks):
                    self._add(b, y, x, pixel, self._products.load(self._weights, weight + b * self._products.row))

    def _neighbours(self, block: Any, origin: Any) -> None:
        """One input block, four neighbouring pixels at a time."""
        spec = self._spec
        with loops.serial(spec.kernel[0]) as kh, loops.serial(spec.kernel[1]) as kw:
            weight = origin + (kh * spec.kernel[1] + kw) * self._row
            stride = spec.stride[1]
            starts = dict.fromkeys((y, x * stride // _FOUR) for y, x in self._places)
            fours = {(y, four): self._four(self._offset(block, y, kh, four * _FOUR, kw)) for y, four in starts}
            self._add_step(
                weight, lambda y, x: self._products.lane(fours[y, x * stride // _FOUR](), x * stride % _FOUR)
            )

    def _channels(self, block: Any, origin: Any) -> None:
        """Four input blocks of an image of one pixel."""
        fours = {(y, x): self._four(self._offset(block, y, 0, x * self._spec.stride[1], 0)) for y, x in self._places}
        for step in range(_FOUR):

            def lane(y: int, x: int, step: int = step) -> list[Any]:
                return self._products.lane(fours[y, x](), step)

            self._add_step(origin + step * self._row, lane)

    def _add_step(self, weight: Any, pixel: Callable[[int, int], list[Any]]) -> None:
        pixels = {place: pixel(*place) for place in self._places}
        for b in range(self._spec.tile.blocks):
            weights = self._products.load(self._weights, weight + b * self._products.row)
            for place in self._places:
                self._add(b, *place, pixels[place], weights)

    def _four(self, place: Any) -> Callable[[], Any]:
        """Four steps, in a register."""
        register = loops.local(_FOUR, "int32")
        steps = tirx.reinterpret("int32x4", loops.load(self._source, place, 4 * _FOUR))
        loops.store(register, 0, loops.fenced(steps, _FOUR), _FOUR)
        return lambda: loops.load(register, 0, _FOUR)

    def _offset(self, block: Any, row: int, kh: Any, column: int, kw: Any) -> Any:
        """Of the first channel of a block, so many pixels right of what output `row` of the tile begins with."""
        spec = self._spec
        image, first, top, left = self._corner
        at_row = (top + row) * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
        at_column = left * spec.stride[1] + column + kw * spec.dilation[1] - spec.padding[1]
        return spec.source.offset(image, first + block, at_row, at_column)

    def _slot(self, block: int, row: int, column: int) -> int:
        tile = self._spec.tile
        return ((block * tile.rows + row) * tile.columns + column) * self._spec.result.lanes

    def _add(self, block: int, row: int, column: int, pixel: Sequence[Any], weights: Sequence[Any]) -> None:
        total = self._products.add(self.sum(block, row, column), pixel, weights)
        loops.store(self._sums, self._slot(block, row, column), total, self._spec.result.lanes)
