"""Winograd's minimal filtering for 3x3 convolutions of stride 1: F(2x2, 3x3) and F(4x4, 3x3).

A tile of ``m x m`` outputs needs ``(m + 2)**2`` products a channel instead of ``9 m**2``: 2.25 times fewer for 2x2,
4 times for 4x4. S. Winograd, Arithmetic Complexity of Computations (1980); A. Lavin and S. Gray, Fast Algorithms for
Convolutional Neural Networks (2015). The transforms are in `winograd_transforms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .epilogue import Epilogue
from .image import Slots, View, clear_border
from .integer_results import store_own
from .tiles import Machine, Tile, streamed_cycles, tile_cycles
from .winograd_transforms import VectorGrid, applied, transform, transformed_weights

__all__ = ["WinogradSpec", "depth_of"]

_CACHE_LINE = 16
"""Channels of a transformed pixel that lie side by side: a cache line of float32."""


@dataclass(frozen=True)
class WinogradSpec:
    """One convolution by Winograd's algorithm, with everything its code depends on.

    Attributes:
        source, result: images; the source's halo covers the padding.
        channels: input slots that are read, from the first.
        padding: above and to the left.
        size: outputs of a tile along each axis, 2 or 4.
        chunk: tiles that are transformed, multiplied and transformed back before the next ones.
        split: what threads share: the chunks (``tiles``), or the channels of every chunk (``channels``).
        workers: equal parts of the work.
        tile: registers of the product: blocks of output channels times tiles (its columns).
        by_lane: whether inputs of the product are loaded as vectors, and their lanes taken one after the other.
        transforms: what is transformed at a time: a ``tile``; the tiles of a chunk along one ``axis``, then along the
            other, with the results between in the work array; or one ``line`` of all tiles. In this order they need
            fewer registers and more addresses.
    """

    family: ClassVar[str] = "winograd"

    source: View
    result: View
    channels: int
    padding: tuple[int, int]
    size: int
    chunk: int
    split: Literal["tiles", "channels"]
    workers: int
    tile: Tile
    epilogue: Epilogue
    by_lane: bool = False
    transforms: Literal["tile", "axis", "line"] = "tile"

    @property
    def accumulator(self) -> str:
        """The type of its sums and of the bias that they begin with, and of all that was transformed, which has larger values
        than the image.
        """
        return DTYPES[self.source.dtype].accumulator

    @property
    def points(self) -> int:
        """Products of a tile and a channel."""
        return (self.size + 2) ** 2

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles of an image, down and across."""
        return -(-self.result.height // self.size), -(-self.result.width // self.size)

    @property
    def tiles(self) -> int:
        """Tiles of the whole batch."""
        return self.result.batch * self.grid[0] * self.grid[1]

    @property
    def panels(self) -> int:
        """Tiles of output blocks."""
        return -(-self.result.blocks // self.tile.blocks)

    @property
    def depth(self) -> int:
        """Channels side by side in a transformed pixel."""
        return depth_of(self.source.lanes, self.by_lane)

    @property
    def groups(self) -> int:
        """Groups of `depth` channels."""
        return -(-self.channels // self.depth)

    @property
    def plane_size(self) -> int:
        """Elements of a chunk's transformed input."""
        return self.points * self.groups * self.chunk * self.depth

    @property
    def product_size(self) -> int:
        """Elements of a chunk's products with one panel."""
        return self.points * self.chunk * self.tile.blocks * self.result.lanes

    @property
    def workspace(self) -> tuple[int, int]:
        """Elements of the two work arrays: transformed inputs and products."""
        planes = self.workers if self.split == "tiles" else 1
        return planes * self.plane_size, self.workers * self.product_size

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined, unused lanes included."""
        result = self.result
        return result.batch * result.blocks * result.height * result.width * result.lanes * self.channels * 9

    @property
    def weight_bytes(self) -> int:
        """Bytes of the transformed weights."""
        element = DTYPES[self.accumulator].bytes
        return element * self.panels * self.points * self.channels * self.tile.blocks * self.result.lanes

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Transformed weights as ``(panels, points, channels, tile.blocks * lanes)`` and bias by output slot."""
        weights = convolution.weights
        lanes, outputs = self.result.lanes, weights.kernel.shape[0]
        row = self.tile.blocks * lanes
        moved = transformed_weights(weights.kernel, self.size).reshape(outputs, -1, self.points).transpose(2, 1, 0)
        panels = np.zeros((self.panels, self.points, self.channels, row), self.accumulator)
        for panel in range(self.panels):
            first = min(panel * self.tile.blocks, self.result.blocks - self.tile.blocks) * lanes
            last = min(outputs, first + row)
            panels[panel][:, slots, : last - first] = moved[:, :, first:last]
        bias = np.zeros(self.result.blocks * lanes, self.accumulator)
        bias[:outputs] = weights.bias
        return panels.reshape(-1), bias

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: products, weights from memory, and transforms.

        Every vector of a transform is loaded, combined and stored once; spilled ones once more.
        """
        machine = machine.for_sums(self.source.dtype)
        chunks = -(-self.tiles // self.chunk)
        product = tile_cycles(self.tile, machine, self.result.blocks, 1, self.chunk, self.channels)
        compute = chunks * self.points * product
        weights = self.weight_bytes
        reread = (chunks - 1) * weights / 4 if weights > machine.l2_bytes else 0.0
        moves, count = transform(self.size), self.size + 2
        operations = 2 * count * sum(int((matrix != 0).sum()) for matrix in moves.source)
        spilled = max(0, self.points - machine.registers)
        blocks = -(-self.channels // self.source.lanes)
        source = blocks * (operations / machine.rate + 2 * self.points + 2 * spilled)
        back = (count + self.size) * sum(int((matrix != 0).sum()) for matrix in moves.result)
        result = self.result.blocks * (back / machine.rate + self.points + 3 * self.size**2)
        return streamed_cycles(machine, compute, weights + reread) + float(self.tiles * (source + result))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result, planes, products)``.

        Weights are ``(panels, points, channels, tile.blocks * lanes)``; the last two arguments are workspace.
        """
        row = self.tile.blocks * self.result.lanes
        planes, products = self.workspace
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.panels * self.points * self.channels * row,), self.accumulator),
            ("bias", (self.result.blocks * self.result.lanes,), self.accumulator),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
            ("planes", (planes,), self.accumulator),
            ("products", (products,), self.accumulator),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _Kernel(self, *buffers).emit())


def depth_of(lanes: int, by_lane: bool) -> int:
    """Channels side by side in a transformed pixel, for vectors of `lanes`.

    Loads of single channels use a cache line up before the next. Loads of vectors take neighbouring pixels together.
    """
    return lanes if by_lane else max(lanes, _CACHE_LINE)


class _Kernel:
    """Emits one kernel."""

    def __init__(self, spec: WinogradSpec, source: Any, weights: Any, bias: Any, *rest: Any) -> None:
        self.spec = spec
        self.source, self.weights, self.bias = source, weights, bias
        self.leaves, (self.result, self.planes, self.products) = rest[:-3], rest[-3:]

    def emit(self) -> None:
        spec = self.spec
        clear_border(self.result, spec.result)
        chunks = -(-spec.tiles // spec.chunk)
        blocks = -(-spec.channels // spec.source.lanes)
        if spec.split == "tiles":
            with loops.shared(chunks, spec.workers) as (worker, chunk):
                first = self._chunk(chunk)
                plane, product = worker * spec.plane_size, worker * spec.product_size
                with loops.serial(blocks) as block:
                    self._transform_source(first, block, plane)
                with loops.serial(spec.panels) as panel:
                    self._multiply(panel, plane, product)
                    self._transform_result(first, panel, product)
            return
        with loops.serial(chunks) as chunk:
            first = self._chunk(chunk)
            with loops.shared(blocks, spec.workers) as (_, block):
                self._transform_source(first, block, 0)
            with loops.shared(spec.panels, spec.workers) as (worker, panel):
                product = worker * spec.product_size
                self._multiply(panel, 0, product)
                self._transform_result(first, panel, product)

    def _chunk(self, chunk: Any) -> Any:
        """The first tile of a chunk."""
        return loops.tile_start(chunk, self.spec.chunk, self.spec.tiles)

    def _corner(self, tile: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Image, first row and column of a tile, and how far they were moved back from the edge."""
        spec = self.spec
        down, across = spec.grid
        image = tile // (down * across) if spec.result.batch > 1 else 0
        vertical, horizontal = (tile // across) % down, tile % across
        top = loops.tile_start(vertical, spec.size, spec.result.height)
        left = loops.tile_start(horizontal, spec.size, spec.result.width)
        return image, top, left, vertical * spec.size - top, horizontal * spec.size - left

    def _transform_source(self, first: Any, block: Any, plane: Any) -> None:
        """One block of channels of all tiles of a chunk: from the image to the work array."""
        spec = self.spec
        lanes, channel = spec.source.lanes, block * spec.source.lanes
        step = spec.groups * spec.chunk * spec.depth

        def planes(index: Any) -> VectorGrid:
            origin = plane + ((channel // spec.depth) * spec.chunk + index) * spec.depth + channel % spec.depth
            return VectorGrid(self.planes, origin, step, spec.size + 2, lanes)

        if spec.transforms == "tile":
            with loops.serial(spec.chunk) as index:
                half = VectorGrid(loops.local(spec.points * lanes, spec.accumulator), 0, lanes, spec.size + 2, lanes)
                with loops.unroll(spec.size + 2) as column:
                    self._source_down(first + index, block, column, half)
                with loops.unroll(spec.size + 2) as row:
                    self._source_across(half, row, planes(index))
            return
        with self._lines(spec.size + 2) as (index, column):
            self._source_down(first + index, block, column, planes(index))
        with self._lines(spec.size + 2) as (index, row):
            self._source_across(planes(index), row, planes(index))

    @contextmanager
    def _lines(self, count: int) -> Iterator[tuple[Any, Any]]:
        """Loops over the tiles of a chunk and the `count` lines of each: all of a tile, or of one tile after another."""
        if self.spec.transforms == "line":
            with loops.serial(count) as line, loops.serial(self.spec.chunk) as index:
                yield index, line
        else:
            with loops.serial(self.spec.chunk) as index, loops.unroll(count) as line:
                yield index, line

    def _source_down(self, tile: Any, block: Any, column: Any, target: VectorGrid) -> None:
        """Transforms a column of a tile of the image."""
        spec = self.spec
        image, top, left, *_ = self._corner(tile)

        def pixel(row: int) -> Any:
            at = spec.source.offset(image, block, top + row - spec.padding[0], left + column - spec.padding[1])
            lanes = spec.source.lanes
            return loops.converted(loops.load(self.source, at, lanes), spec.accumulator, lanes)

        for row, value in enumerate(applied(transform(spec.size).source, pixel, spec.source.lanes)):
            target.store(row, column, value)

    def _source_across(self, half: VectorGrid, row: Any, target: VectorGrid) -> None:
        """Transforms a row of what `_source_down` left."""
        stages, lanes = transform(self.spec.size).source, self.spec.source.lanes
        for column, value in enumerate(applied(stages, lambda column: half.load(row, column), lanes)):
            target.store(row, column, value)

    def _multiply(self, panel: Any, plane: Any, product: Any) -> None:
        spec, tile, lanes = self.spec, self.spec.tile, self.spec.result.lanes
        with loops.serial(spec.points) as point, loops.serial(-(-spec.chunk // tile.columns)) as part:
            first = loops.tile_start(part, tile.columns, spec.chunk)
            sums = loops.local(tile.blocks * tile.columns * lanes, spec.accumulator)
            with loops.unroll(tile.blocks * tile.columns) as slot:
                loops.store(sums, slot * lanes, loops.number(0.0, lanes, spec.accumulator), lanes)
            start = plane + point * (spec.groups * spec.chunk * spec.depth) + first * spec.depth
            rows = (panel * spec.points + point) * spec.channels
            whole = spec.channels // spec.depth
            if whole:
                with loops.serial(whole) as group:
                    self._products(
                        sums, start + group * (spec.chunk * spec.depth), rows + group * spec.depth, spec.depth
                    )
            if spec.channels % spec.depth:
                rest = start + whole * (spec.chunk * spec.depth)
                self._products(sums, rest, rows + whole * spec.depth, spec.channels % spec.depth)
            with loops.unroll(tile.columns) as column, loops.unroll(tile.blocks) as block:
                at = product + ((point * spec.chunk + first + column) * tile.blocks + block) * lanes
                value = loops.load(sums, (block * tile.columns + column) * lanes, lanes)
                loops.store(self.products, at, value, lanes)

    def _products(self, sums: Any, start: Any, rows: Any, channels: int) -> None:
        """Adds `channels` neighbouring channels of a register tile's pixels times their weights."""
        spec, tile, lanes = self.spec, self.spec.tile, self.spec.result.lanes
        if spec.by_lane:
            pixels = loops.local(tile.columns * lanes, spec.accumulator)
            with loops.unroll(tile.columns) as column:
                loops.store(pixels, column * lanes, loops.load(self.planes, start + column * spec.depth, lanes), lanes)
            for channel in range(channels):
                with loops.unroll(tile.columns) as column:
                    element = loops.lane(loops.load(pixels, column * lanes, lanes), channel)
                    self._product(sums, element, rows + channel, column)
            return
        with loops.serial(channels) as channel, loops.unroll(tile.columns) as column:
            self._product(sums, loops.load(self.planes, start + column * spec.depth + channel), rows + channel, column)

    def _product(self, sums: Any, element: Any, row: Any, column: Any) -> None:
        """One input element times the weights of all blocks."""
        tile, lanes = self.spec.tile, self.spec.result.lanes
        with loops.unroll(tile.blocks) as block:
            weight = loops.load(self.weights, (row * tile.blocks + block) * lanes, lanes)
            slot = (block * tile.columns + column) * lanes
            value = loops.load(sums, slot, lanes) + loops.broadcast(element, lanes) * weight
            loops.store(sums, slot, value, lanes)

    def _transform_result(self, first: Any, panel: Any, product: Any) -> None:
        """One panel of output channels of all tiles of a chunk: from the products to the result."""
        spec, tile, lanes = self.spec, self.spec.tile, self.spec.result.lanes
        start = loops.tile_start(panel, tile.blocks, spec.result.blocks)
        step = spec.chunk * tile.blocks * lanes

        def products(index: Any, block: Any) -> VectorGrid:
            origin = product + (index * tile.blocks + block) * lanes
            return VectorGrid(self.products, origin, step, spec.size + 2, lanes)

        if spec.transforms == "tile":
            with loops.serial(spec.chunk) as index, loops.serial(tile.blocks) as block:
                half = VectorGrid(
                    loops.local(spec.size * (spec.size + 2) * lanes, spec.accumulator), 0, lanes, spec.size + 2, lanes
                )
                with loops.unroll(spec.size + 2) as column:
                    self._result_down(products(index, block), column, half)
                with loops.unroll(spec.size) as row:
                    self._result_across(half, row, first + index, start + block)
            return
        with loops.serial(tile.blocks) as block, self._lines(spec.size + 2) as (index, column):
            self._result_down(products(index, block), column, products(index, block))
        with loops.serial(tile.blocks) as block, self._lines(spec.size) as (index, row):
            self._result_across(products(index, block), row, first + index, start + block)

    def _result_down(self, products: VectorGrid, column: Any, target: VectorGrid) -> None:
        """Transforms a column of a tile's products; may work in place."""
        stages, lanes = transform(self.spec.size).result, self.spec.result.lanes
        for row, value in enumerate(applied(stages, lambda row: products.load(row, column), lanes)):
            target.store(row, column, value)

    def _result_across(self, half: VectorGrid, row: Any, tile: Any, block: Any) -> None:
        """Transforms a row of what `_result_down` left, and stores that row of a tile of the result."""
        spec, size, lanes = self.spec, self.spec.size, self.spec.result.lanes
        image, top, left, below, beside = self._corner(tile)
        bias = loops.load(self.bias, block * lanes, lanes)
        found = applied(transform(size).result, lambda column: half.load(row, column), lanes)
        values = [value + bias for value in found]
        # What a tile that was moved back has in common with its neighbour is the neighbour's: two
        # threads must not write two roundings of one output.
        above, aside = _own(row, below, spec.result.height % size), spec.result.width % size
        position = (image, block, top + row, left)
        own = [_own(column, beside, aside) for column in range(size)]
        if spec.result.is_code and lanes > 1:
            store_own(values, spec.epilogue, self.leaves, self.result, spec.result, position, (above, own))
            return
        for column, value in enumerate(values):
            place = (image, block, top + row, left + column)
            with loops.when(above, own[column]):
                final = spec.epilogue.value(value, self.leaves, place, lanes)
                loops.store(self.result, spec.result.offset(*place), final, lanes)


def _own(index: Any, moved: Any, rest: int) -> Any:
    """Whether an output at `index` of a tile that was moved back by `moved` is its own; None for always."""
    return index >= moved if rest else None
