"""Direct convolution of codes two products at a time, over images whose channels lie side by side (`words`).

The channels of a pixel are taken four to a word, and so are the columns of a row of the window, which follow each other in
memory. Those of a tile of pixels become pairs once for all outputs, in a small workspace. Weights lie in the order of words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import product
from typing import Any, ClassVar

import numpy as np
from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .convolution import ConvolutionSpec, outputs_of
from .image import Slots, clear_border
from .tiles import Machine, Tile, streamed_cycles
from .words import CODES, DOT, add_pair, kept, pairs, word

__all__ = ["PairedConvolutionSpec", "paired_spec"]

_MOST_SUMS = 4
"""Sums of a tile: with the pairs of their weights and pixels they fill the general registers."""
_HALVES = 2
"""Pairs of a word."""
_WIDENED, _STORED = 3.0, 5.0
"""Instructions that load a word and make pairs of it, and that store these beside."""
_LONG_SUM, _MANY_TILES = 9, 8
"""Steps of an output, and tiles of outputs, from which on it is."""
_STEP, _SPILLED = 3.0, 3.0
"""What a step costs beside, in instructions: the loop, and what LLVM keeps in memory where the registers are full."""
_FINISH, _BEGIN = 12.0, 20.0
"""Instructions of an output's way from sum to code, and of beginning a tile."""


@dataclass(frozen=True)
class PairedConvolutionSpec(ConvolutionSpec):
    """A convolution of codes whose source has the channels of a pixel side by side."""

    family: ClassVar[str] = "paired_convolution"

    @property
    def widened(self) -> bool:
        """Whether the pixels of a tile become pairs once for all outputs, in a workspace: where that is less work."""
        return self.steps >= _LONG_SUM and self.tiles >= _MANY_TILES

    @property
    def turns(self) -> int:
        """Columns of the window that are apart in memory; 1 where all of them follow each other."""
        return 1 if self.dilation[1] == 1 else self.kernel[1]

    @property
    def words(self) -> int:
        """Words of each of `turns`."""
        together = self.kernel[1] if self.turns == 1 else 1
        return -(-((together - 1) * self.source.column + self.blocks) // CODES)

    @property
    def steps(self) -> int:
        """Words of weights of an output."""
        return self.kernel[0] * self.turns * self.words

    @property
    def workspace(self) -> tuple[int, ...]:
        """The pairs of the pixels of a tile, for each core."""
        return (self.cores * self.steps * self.tile.pixels * _HALVES,) if self.widened else ()

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return CODES * self.tiles * self.tile.blocks * self.steps

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights as ``(tiles, KH, turns, words, tile.blocks, 4)``, and bias by output."""
        height, width = self.kernel
        panels = np.zeros((self.tiles, self.tile.blocks, height, self.turns, self.words * CODES), self.factor)
        for tile in range(self.tiles):
            first, last = outputs_of(self, convolution.weights, tile)
            for kw in range(width):
                turn, place = (0, kw * self.source.column) if self.turns == 1 else (kw, 0)
                kernel = convolution.weights.kernel[first:last, :, :, kw].transpose(0, 2, 1)
                panels[tile, : last - first, :, turn, place + slots] = kernel.transpose(2, 0, 1)
        split = panels.reshape(self.tiles, self.tile.blocks, height, self.turns, self.words, CODES)
        bias = np.zeros(self.result.blocks, self.accumulator)
        bias[: len(convolution.weights.bias)] = convolution.weights.bias
        return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5)).reshape(-1), bias

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return streamed_cycles(machine, self.result.batch * _instructions(self), self.weight_bytes)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, weights, bias, leaves..., result, workspace)``."""
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.weight_bytes,), self.factor),
            ("bias", (self.result.blocks,), self.accumulator),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
            *(("workspace", (size,), self.accumulator) for size in self.workspace),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def paired_spec(spec: ConvolutionSpec, machine: Machine) -> PairedConvolutionSpec | None:
    """The layer, of one group, with products of pairs and its best tile; None where they do not apply."""
    source = spec.source
    beside = source.block == source.lanes == 1 or source.lanes == spec.blocks == 1
    if machine.dot != DOT or source.dtype != machine.codes or not beside or spec.result.lanes != 1:
        return None
    values = {field.name: getattr(spec, field.name) for field in fields(ConvolutionSpec)}
    made = PairedConvolutionSpec(**values)
    fitted = min((replace(made, tile=tile) for tile in _tiles(made)), key=_instructions)
    return fitted if _end(fitted) <= source.size else None


def _tiles(spec: ConvolutionSpec) -> Iterator[Tile]:
    view, most = spec.result, range(1, _MOST_SUMS + 1)
    for blocks, rows, columns in product(most, most, most):
        fits = blocks <= view.blocks and rows <= view.height and columns <= view.width
        if fits and blocks * rows * columns <= _MOST_SUMS:
            yield Tile(blocks, rows, columns)


def _instructions(spec: PairedConvolutionSpec) -> float:
    """Of one image; a core without a second pipeline starts one in a cycle."""
    view, tile = spec.result, spec.tile
    sums = tile.blocks * tile.pixels
    step = _HALVES * sums + _WIDENED * tile.blocks + (_HALVES if spec.widened else _WIDENED) * tile.pixels + _STEP
    step += _SPILLED if sums == _MOST_SUMS else 0.0
    tiles = -(-view.height // tile.rows) * -(-view.width // tile.columns)
    widening = _STORED * spec.steps * tile.pixels + _BEGIN if spec.widened else 0.0
    return tiles * (widening + spec.tiles * (spec.steps * step + sums * _FINISH + _BEGIN))


def _end(spec: PairedConvolutionSpec) -> int:
    """Where in the source's buffer the last word ends."""
    source, result = spec.source, spec.result
    row, column = (
        (extent - 1) * spec.stride[axis] - spec.padding[axis]
        for axis, extent in enumerate((result.height, result.width))
    )
    row += (spec.kernel[0] - 1) * spec.dilation[0]
    column += 0 if spec.turns == 1 else (spec.kernel[1] - 1) * spec.dilation[1]
    return int(source.offset(source.batch - 1, 0, row, column)) + spec.words * CODES


def _body(
    spec: PairedConvolutionSpec, source: loops.Buffer, weights: loops.Buffer, bias: loops.Buffer, *rest: loops.Buffer
) -> None:
    *leaves, result = rest[:-1] if spec.widened else rest
    view, tile = spec.result, spec.tile
    clear_border(result, view)
    row_tiles, column_tiles = -(-view.height // tile.rows), -(-view.width // tile.columns)
    places = list(product(range(tile.blocks), range(tile.rows), range(tile.columns)))

    def compute(corner: tuple[Any, Any, Any], panel: Any, step: Callable[[loops.Buffer, Any], None]) -> None:
        """The outputs of a panel of weights at an image, row and column; `step` adds all products."""
        image, top, left = corner
        block = loops.tile_start(panel, tile.blocks, view.blocks)
        sums = loops.local(len(places), spec.accumulator)
        for number, (b, _, _) in enumerate(places):
            loops.store(sums, number, loops.load(bias, block + b))
        step(sums, panel * (spec.steps * tile.blocks * CODES))
        for number, (b, y, x) in enumerate(places):
            position = (image, block + b, top + y, left + x)
            value = spec.epilogue.value(loops.load(sums, number), leaves, position, 1)
            loops.store(result, view.offset(*position), value)

    def corner_of(image: Any, line: Any, turn: Any) -> tuple[Any, Any, Any]:
        top = loops.tile_start(line, tile.rows, view.height)
        return image, top, loops.tile_start(turn, tile.columns, view.width)

    if not spec.widened:
        # Of a short sum, LLVM keeps the weights for all pixels of a row.
        with loops.parallel(view.batch * spec.tiles * row_tiles) as work, loops.serial(column_tiles) as turn:
            image = work // (spec.tiles * row_tiles) if view.batch > 1 else 0
            corner = corner_of(image, work % row_tiles, turn)
            add = partial(_add_direct, spec, source, weights, corner)
            compute(corner, (work // row_tiles) % spec.tiles, add)
        return
    with loops.shared(view.batch * row_tiles * column_tiles, spec.cores) as (worker, turn):
        line, workspace = turn // column_tiles, rest[-1]
        corner = corner_of(line // row_tiles if view.batch > 1 else 0, line % row_tiles, turn % column_tiles)
        pixels = worker * (spec.steps * tile.pixels * _HALVES)
        _widen(spec, source, workspace, pixels, corner)
        with loops.serial(spec.tiles) as panel:
            compute(corner, panel, partial(_add_widened, spec, weights, workspace, pixels))


def _widen(
    spec: PairedConvolutionSpec,
    source: loops.Buffer,
    workspace: loops.Buffer,
    pixels: Any,
    corner: tuple[Any, Any, Any],
) -> None:
    """Writes the pairs that all outputs of a tile are made of, ``(steps, pixels, 2)``."""
    for step, words in _words(spec, source, corner):
        for number, pixel in enumerate(words):
            for half, pair in enumerate(pairs(pixel)):
                loops.store(workspace, pixels + (step * spec.tile.pixels + number) * _HALVES + half, pair)


def _words(
    spec: PairedConvolutionSpec, source: loops.Buffer, corner: tuple[Any, Any, Any]
) -> Iterator[tuple[Any, list[Any]]]:
    """Within a loop over all steps, each with the words of the pixels of a tile."""
    tile, (image, top, left) = spec.tile, corner
    with loops.serial(spec.kernel[0]) as kh, loops.serial(spec.turns) as kw, loops.serial(spec.words) as part:
        words = []
        for y, x in product(range(tile.rows), range(tile.columns)):
            row = (top + y) * spec.stride[0] + kh * spec.dilation[0] - spec.padding[0]
            column = (left + x) * spec.stride[1] + kw * spec.dilation[1] - spec.padding[1]
            words.append(word(source, spec.source.offset(image, 0, row, column) + part * CODES))
        yield (kh * spec.turns + kw) * spec.words + part, words


def _add_direct(
    spec: PairedConvolutionSpec,
    source: loops.Buffer,
    weights: loops.Buffer,
    corner: tuple[Any, Any, Any],
    sums: loops.Buffer,
    origin: Any,
) -> None:
    """Adds all products of weights from `origin` on with the pixels at `corner`."""
    for step, words in _words(spec, source, corner):
        factors = _factors(spec, weights, origin, step)
        for number, pixel in enumerate(words):
            _add(spec, sums, factors, number, pairs(pixel))


def _add_widened(
    spec: PairedConvolutionSpec,
    weights: loops.Buffer,
    workspace: loops.Buffer,
    pixels: Any,
    sums: loops.Buffer,
    origin: Any,
) -> None:
    """The same with the pairs from `pixels` on."""
    with loops.serial(spec.steps) as step:
        factors = _factors(spec, weights, origin, step)
        for number in range(spec.tile.pixels):
            place = pixels + (step * spec.tile.pixels + number) * _HALVES
            both = [kept(loops.load(workspace, place + half)) for half in range(_HALVES)]
            _add(spec, sums, factors, number, both)


def _factors(spec: PairedConvolutionSpec, weights: loops.Buffer, origin: Any, step: Any) -> list[Any]:
    blocks = spec.tile.blocks
    return [pairs(word(weights, origin + (step * blocks + b) * CODES)) for b in range(blocks)]


def _add(
    spec: PairedConvolutionSpec, sums: loops.Buffer, factors: Sequence[Any], number: int, pixel: Sequence[Any]
) -> None:
    """The products of one pixel of a tile."""
    for b, factor in enumerate(factors):
        slot = b * spec.tile.pixels + number
        total = add_pair(loops.load(sums, slot), factor[0], pixel[0])
        loops.store(sums, slot, add_pair(total, factor[1], pixel[1]))
