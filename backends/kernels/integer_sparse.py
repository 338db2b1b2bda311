"""Convolution of codes by few weights: only vectors of weights that are not all zero are read and multiplied.

Such a vector are the weights of one step (some channels of a pixel at one place of the window) for a block of outputs. Beside
it lies how far from a window's corner its pixels are. Images lie as the dense kernel has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .image import Slots, View, clear_border
from .integer_convolution import IntegerConvolutionSpec, in_pairs, reading, widen
from .integer_products import weights_of
from .integer_results import store_row
from .integer_tiles import gather_cycles, gather_tile
from .packed_rows import shared_size
from .tiles import Machine, streamed_cycles

__all__ = ["IntegerSparseSpec", "sparse_spec", "used_vectors"]

_FOUR = 4


@dataclass(frozen=True)
class IntegerSparseSpec(IntegerConvolutionSpec):
    """A convolution of codes, `vectors` of whose weights are not zero; a tile is one block of outputs."""

    family: ClassVar[str] = "integer_sparse"

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights and of their places."""
        return self.vectors * (_FOUR * self.result.lanes + 4)

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Vectors of weights, bias by output slot, for every block its first vector and one after the last, and for every
        vector the distance of its pixels from the window's corner.
        """
        split = _vectors(self, convolution, slots)
        block, *place = np.nonzero(split.any(axis=(-2, -1)))
        weights = np.zeros((self.vectors, self.result.lanes, self.products.channels), self.products.weights)
        weights[: len(block)] = split[(block, *place)]
        bias = np.zeros(self.result.blocks * self.result.lanes, self.accumulator)
        bias[: len(convolution.weights.bias)] = convolution.weights.bias
        places = np.zeros(self.vectors, "int32")
        places[: len(block)] = _distances(self, *place)
        starts = np.searchsorted(block, np.arange(self.result.blocks + 1)).astype("int32")
        return weights_of(weights, self.products), bias, starts, places

    def typical(self) -> Mapping[int, Array]:
        """Equally many vectors of all blocks, from everywhere."""
        blocks, steps = self.result.blocks, self.source.lanes // self.products.channels
        shape = (self.blocks, *self.kernel, steps)
        every = np.arange(self.vectors) * 7919 % int(np.prod(shape))
        places = _distances(self, *np.unravel_index(every, shape)).astype("int32")
        starts = np.linspace(0, self.vectors, blocks + 1).astype("int32")
        return {3: starts, 4: places}

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        compute = self.result.batch * gather_cycles(self, self.tile, self.dot, machine, self.vectors)
        return streamed_cycles(machine, compute, self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, starts, places, leaves..., result[, workspace])``."""
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.vectors * self.products.row,), self.products.weights),
            ("bias", (self.result.blocks * self.result.lanes,), self.accumulator),
            ("starts", (self.result.blocks + 1,), "int32"),
            ("places", (self.vectors,), "int32"),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
            *(("workspace", (size,), self.accumulator) for size in self.workspace),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def sparse_spec(spec: IntegerConvolutionSpec, machine: Machine) -> IntegerSparseSpec | None:
    """The layer by its vectors of weights that are not zero; None where nearly all are, or groups read their own channels."""
    if not spec.vectors or spec.banded:
        return None
    values = {field.name: getattr(spec, field.name) for field in fields(IntegerConvolutionSpec)}
    return replace(IntegerSparseSpec(**values), tile=gather_tile(spec, spec.dot, machine, spec.vectors), moved=False)


def used_vectors(spec: IntegerConvolutionSpec, convolution: Convolution, slots: Slots) -> int:
    """How many vectors of weights are not all zero, rounded up to a size that layers share."""
    return shared_size(int(np.count_nonzero(_vectors(spec, convolution, slots).any(axis=(-2, -1)))))


def _vectors(spec: IntegerConvolutionSpec, convolution: Convolution, slots: Slots) -> npt.NDArray[Any]:
    """Weights as ``(output block, input block, KH, KW, step, lane, channel)``."""
    kernel, lanes_in, lanes = convolution.weights.kernel, spec.source.lanes, spec.result.lanes
    outputs, _, height, width = kernel.shape
    whole = np.zeros((spec.result.blocks * lanes, spec.blocks * lanes_in, height, width), "int16")
    whole[:outputs, slots] = kernel
    channels = spec.products.channels
    split = whole.reshape(-1, lanes, spec.blocks, lanes_in // channels, channels, height, width)
    return split.transpose(0, 2, 5, 6, 3, 1, 4)


def _distances(spec: IntegerConvolutionSpec, block: Any, kh: Any, kw: Any, step: Any) -> npt.NDArray[np.int64]:
    """In elements of what is multiplied."""
    view: View = in_pairs(spec.source) if spec.products.widened else spec.source
    rows, columns = kh * spec.dilation[0] * view.row, kw * spec.dilation[1] * view.column
    found: npt.NDArray[np.int64] = block * view.block + rows + columns + step * (1 if spec.products.widened else _FOUR)
    return found


def _body(
    spec: IntegerSparseSpec,
    source: loops.Buffer,
    weights: loops.Buffer,
    bias: loops.Buffer,
    starts: loops.Buffer,
    places: loops.Buffer,
    *rest: loops.Buffer,
) -> None:
    view, tile, leaves = spec.result, spec.tile, rest[: len(spec.epilogue.leaves)]
    result, by_four = rest[len(leaves)], reading(spec) == "neighbours" and spec.products.by_lane
    if spec.workspace:
        widen(spec.source, source, rest[-1])
        source, spec = rest[-1], replace(spec, source=in_pairs(spec.source))
    clear_border(result, view)
    row_tiles, column_tiles = -(-view.height // tile.rows), -(-view.width // tile.columns)
    with loops.parallel(view.batch * view.blocks * row_tiles) as line, loops.serial(column_tiles) as turn:
        image = line // (view.blocks * row_tiles) if view.batch > 1 else 0
        block = (line // row_tiles) % view.blocks
        top = loops.tile_start(line % row_tiles, tile.rows, view.height)
        left = loops.tile_start(turn, tile.columns, view.width)
        work = _Tile(spec, source, (image, top, left), by_four)
        work.start(loops.load(bias, block * view.lanes, view.lanes))
        with loops.span(loops.table(starts, block), loops.table(starts, block + 1)) as number:
            work.add(loops.table(places, number), spec.products.load(weights, number * spec.products.row))
        for y in range(tile.rows):
            sums = [work.sum(y, x) for x in range(tile.columns)]
            store_row(sums, spec.epilogue, leaves, result, view, (image, block, top + y, left), spec.dot)


class _Tile:
    """The sums of a tile of pixels: `corner` is the image, and the first row and column of the outputs."""

    def __init__(
        self, spec: IntegerSparseSpec, source: loops.Buffer, corner: tuple[Any, Any, Any], by_four: bool
    ) -> None:
        self._spec, self._source, self._corner, self._by_four = spec, source, corner, by_four
        self._pixels = [(y, x) for y in range(spec.tile.rows) for x in range(spec.tile.columns)]
        self._lanes = spec.result.lanes
        self._sums = loops.local(len(self._pixels) * self._lanes, spec.accumulator)

    def start(self, bias: Any) -> None:
        """Every sum begins with the bias of its channel."""
        for y, x in self._pixels:
            self._put(y, x, bias)

    def sum(self, row: int, column: int) -> Any:
        """Of one pixel."""
        return loops.load(self._sums, self._slot(row, column), self._lanes)

    def add(self, place: Any, weights: Sequence[Any]) -> None:
        """The products of a vector of weights, whose pixels are `place` away from the windows' corners."""
        products, fours = self._spec.products, self._fours(place)
        stride = self._spec.stride[1]
        for y, x in self._pixels:
            if fours:
                pixel = products.lane(loops.load(fours[y, x * stride // _FOUR], 0, _FOUR), x * stride % _FOUR)
            else:
                pixel = products.spread(self._source, self._offset(y, x * stride) + place)
            self._put(y, x, products.add(self.sum(y, x), pixel, weights))

    def _fours(self, place: Any) -> dict[tuple[int, int], loops.Buffer]:
        """Four neighbouring pixels each, in registers."""
        found: dict[tuple[int, int], loops.Buffer] = {}
        stride = self._spec.stride[1]
        for y, four in dict.fromkeys((y, x * stride // _FOUR) for y, x in self._pixels if self._by_four):
            found[y, four] = loops.local(_FOUR, "int32")
            pixels = loops.load(self._source, self._offset(y, four * _FOUR) + place, 4 * _FOUR)
            loops.store(found[y, four], 0, loops.fenced(tirx.reinterpret("int32x4", pixels), _FOUR), _FOUR)
        return found

    def _offset(self, row: int, column: int) -> Any:
        """Of the first channel, so many pixels right of the window of the first output of a row of the tile."""
        spec = self._spec
        image, top, left = self._corner
        at_row = (top + row) * spec.stride[0] - spec.padding[0]
        return spec.source.offset(image, 0, at_row, left * spec.stride[1] + column - spec.padding[1])

    def _slot(self, row: int, column: int) -> int:
        return (row * self._spec.tile.columns + column) * self._lanes

    def _put(self, row: int, column: int, value: Any) -> None:
        loops.store(self._sums, self._slot(row, column), value, self._lanes)
