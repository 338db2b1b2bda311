"""Pooling windows and the mean over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, ClassVar

from tvm import tirx

from ..dtypes import DTYPES
from . import loops
from .epilogue import Epilogue
from .image import View, clear_border, moving_cycles
from .tiles import Machine
from .vectors import Vectors

__all__ = ["LargestSpec", "MeanSpec", "PoolSpec"]


@dataclass(frozen=True)
class PoolSpec:
    """A pooling; `kind` is ``max``, ``average`` or ``sum`` (of codes), `padding` above and to the left. `together` pixels of a
    row are computed at a time: more than one in planes, and of codes in blocks whose pixels lie side by side.
    """

    family: ClassVar[str] = "pool"

    kind: str
    source: View
    result: View
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    counts_padding: bool
    epilogue: Epilogue
    together: int = 1

    @property
    def accumulator(self) -> str:
        """The type of its sums."""
        return DTYPES[self.source.dtype].accumulator

    @property
    def inside(self) -> bool:
        """Whether every window lies within the image."""
        bottom = (self.result.height - 1) * self.stride[0] + self.window[0]
        right = (self.result.width - 1) * self.stride[1] + self.window[1]
        return self.padding == (0, 0) and bottom <= self.source.height and right <= self.source.width

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        reads = self.window[0] * self.window[1] * (self.stride[1] if self.together > 1 else 1)
        return moving_cycles(self.result, self.together, reads + len(self.epilogue.leaves))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        return loops.kernel(name, _arguments(self), lambda *buffers: _pool(self, *buffers))


@dataclass(frozen=True)
class MeanSpec:
    """The mean over all pixels of every channel, of codes their sum; `together` is as in PoolSpec."""

    family: ClassVar[str] = "mean"

    source: View
    result: View
    epilogue: Epilogue
    together: int = 1

    @property
    def accumulator(self) -> str:
        """The type of its sums."""
        return DTYPES[self.source.dtype].accumulator

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return moving_cycles(self.source, self.together, 0) + 20.0 * self.source.batch * self.source.blocks

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        return loops.kernel(name, _arguments(self), lambda *buffers: _mean(self, *buffers))


@dataclass(frozen=True)
class LargestSpec:
    """The largest of all pixels of every channel."""

    family: ClassVar[str] = "largest"

    source: View
    result: View
    epilogue: Epilogue

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return moving_cycles(self.source, 1, 0) + 20.0 * self.source.batch * self.source.blocks

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        return loops.kernel(name, _arguments(self), lambda *buffers: _largest_pixel(self, *buffers))


def _arguments(spec: PoolSpec | MeanSpec | LargestSpec) -> list[tuple[str, Sequence[int], str]]:
    return [
        ("source", *spec.source.argument),
        *spec.epilogue.arguments(),
        ("result", *spec.result.argument),
    ]


def _pool(spec: PoolSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    leaves, result = rest[:-1], rest[-1]
    view = spec.result
    clear_border(result, view)
    with view.lines() as (image, block, row, _):
        for begin, end, together in _stretches(spec):
            with loops.serial(-(-(end - begin) // together)) as turn:
                position = (image, block, row, begin + loops.tile_start(turn, together, end - begin))
                window = _Window(spec, source, position, together)
                value = _maximum(window) if spec.kind == "max" else _average(window)
                value = spec.epilogue.value(value, leaves, position, window.lanes)
                loops.store(result, view.offset(*position), value, window.lanes)


def _stretches(spec: PoolSpec) -> list[tuple[int, int, int]]:
    """Columns from one to before another, and how many are computed together: those whose windows lie within the image."""
    width, step, padding = spec.result.width, spec.stride[1], spec.padding[1]
    first = min(width, -(-padding // step))
    last = min(width, max(0, (spec.source.width + padding - spec.window[1]) // step + 1))
    if spec.together == 1 or last - first < spec.together:
        return [(0, width, 1)]
    return [s for s in ((0, first, 1), (first, last, spec.together), (last, width, 1)) if s[0] < s[1]]


@dataclass(frozen=True)
class _Window:
    """The pixels of a window for `together` neighbouring results. More than one are read where windows lie within a row."""

    spec: PoolSpec
    source: loops.Buffer
    position: tuple[Any, Any, Any, Any]
    together: int

    @property
    def lanes(self) -> int:
        return self.spec.result.lanes * self.together

    @property
    def corner(self) -> tuple[Any, Any]:
        top, left = (
            at * step - padding
            for at, step, padding in zip(self.position[2:], self.spec.stride, self.spec.padding, strict=True)
        )
        return top, left

    def place(self, kh: Any, kw: Any) -> tuple[Any, Any]:
        """Row and column; what is outside is moved to the nearest pixel."""
        top, left = self.corner
        row = _clamped(top + kh, self.spec.source.height, self.spec.inside)
        return row, _clamped(left + kw, self.spec.source.width, self.spec.inside or self.together > 1)

    def pixel(self, row: Any, column: Any) -> Any:
        """A vector: the channels of a block, or those of pixels as far apart as windows are."""
        offset, step = self.spec.source.offset(*self.position[:2], row, column), self.spec.stride[1]
        channels = self.spec.source.lanes
        if self.together == 1 or step == 1:
            return loops.load(self.source, offset, self.lanes)
        if step == 2:
            both = [loops.load(self.source, offset + half * self.lanes, self.lanes) for half in range(2)]
            places = range(0, 2 * self.lanes, 2 * channels)
            return loops.picked(both, [place + lane for place in places for lane in range(channels)])
        apart = [loops.load(self.source, offset + step * channels * pixel, channels) for pixel in range(self.together)]
        return loops.picked(apart, range(self.lanes))


def _clamped(index: Any, extent: int, inside: bool) -> Any:
    return index if inside else tirx.max(loops.at_most(index, extent - 1), tirx.const(0, "int32"))


def _maximum(window: _Window) -> Any:
    """A pixel that was moved is in the window too, so the maximum stays the same."""
    height, width = window.spec.window
    pixels = [window.pixel(*window.place(kh, kw)) for kh, kw in product(range(height), range(width))]
    if window.spec.source.is_code:
        return reduce(tirx.max, pixels)
    vectors = Vectors(window.lanes, window.spec.epilogue.keeps_nans, window.spec.source.dtype)
    return reduce(vectors.maximum, pixels) if vectors.keeps_nans else _largest(pixels, vectors)


def _largest(pixels: Sequence[Any], vectors: Vectors) -> Any:
    """NaN is looked for beside the maximum, which loses it: one comparison finds it in two pixels."""
    pairs = zip(pixels[::2], [*pixels[1::2], pixels[0]], strict=False)
    found = reduce(tirx.Or, [tirx.Or(tirx.isnan(a), tirx.isnan(b)) for a, b in pairs])
    return tirx.Select(found, vectors.number(math.nan), reduce(tirx.max, pixels))


def _average(window: _Window) -> Any:
    """Pixels outside count as zero, and in the divisor only where `counts_padding` says so."""
    spec, lanes = window.spec, window.lanes
    top, left = window.corner
    total = loops.local(lanes, spec.accumulator)
    loops.store(total, 0, loops.number(0, lanes, spec.accumulator), lanes)
    with loops.serial(spec.window[0]) as kh, loops.unroll(spec.window[1]) as kw:
        row, column = window.place(kh, kw)
        pixel = loops.converted(window.pixel(row, column), spec.accumulator, lanes)
        if not spec.inside:
            within = tirx.all(tirx.EQ(row, top + kh), tirx.EQ(column, left + kw))
            pixel = tirx.Select(loops.broadcast(within, lanes), pixel, loops.number(0, lanes, spec.accumulator))
        loops.store(total, 0, loops.load(total, 0, lanes) + pixel, lanes)
    found = loops.load(total, 0, lanes)
    return found if spec.kind == "sum" else found * loops.broadcast(_share(window), lanes)


def _share(window: _Window) -> Any:
    """One divided by the number of pixels that count."""
    spec, (top, left) = window.spec, window.corner
    if spec.inside or spec.counts_padding:
        return loops.number(1.0 / (spec.window[0] * spec.window[1]))
    zero = tirx.const(0, "int32")
    rows = loops.at_most(top + spec.window[0], spec.source.height) - tirx.max(top, zero)
    columns: Any = spec.window[1]
    if window.together == 1:
        columns = loops.at_most(left + spec.window[1], spec.source.width) - tirx.max(left, zero)
    return loops.number(1.0) / (rows * columns).astype("float32")


def _mean(spec: MeanSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    """Those of each row by themselves: a long sum loses what is added to it last."""
    leaves, result = rest[:-1], rest[-1]
    view, lanes, together = spec.result, spec.result.lanes, spec.together
    height, width = spec.source.height, spec.source.width
    clear_border(result, view)
    with spec.source.planes() as (image, block):
        total = loops.local(lanes * together, spec.accumulator)
        loops.store(total, 0, loops.number(0, lanes * together, spec.accumulator), lanes * together)
        with loops.serial(height) as row:
            value = _row_sum(spec, source, (image, block, row), together)
            loops.store(total, 0, loops.load(total, 0, lanes * together) + value, lanes * together)
        value = loops.load(total, 0, lanes * together)
        if together > 1:
            value = sum((loops.load(total, place) for place in range(1, together)), loops.load(total, 0))
        if not spec.source.is_code:
            value = value * loops.number(1.0 / (height * width), lanes)
        position = (image, block, 0, 0)
        loops.store(result, view.offset(*position), spec.epilogue.value(value, leaves, position, lanes), lanes)
    if view.blocks > spec.source.blocks:  # Lanes that no plane is for.
        count = view.blocks - spec.source.blocks
        with loops.serial(view.batch) as image, loops.serial(count) as block:
            loops.store(result, view.offset(image, spec.source.blocks + block, 0, 0), loops.number(0.0))


def _largest_pixel(spec: LargestSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    """Of several parts of each row, because a maximum depends on the one before it."""
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.source, spec.source.lanes
    vectors = Vectors(lanes, spec.epilogue.keeps_nans, view.dtype)
    parts = next(parts for parts in range(8, 0, -1) if view.width % parts == 0)
    clear_border(result, spec.result)
    with view.planes() as (image, block):
        best = loops.local(parts * lanes, view.dtype)
        with loops.unroll(parts) as part:
            loops.store(best, part * lanes, vectors.number(-math.inf), lanes)
        with loops.serial(view.height) as row, loops.serial(view.width // parts) as turn, loops.unroll(parts) as part:
            pixel = loops.load(source, view.offset(image, block, row, turn * parts + part), lanes)
            loops.store(best, part * lanes, vectors.maximum(loops.load(best, part * lanes, lanes), pixel), lanes)
        value = loops.load(best, 0, lanes)
        for part in range(1, parts):
            loops.store(best, 0, vectors.maximum(value, loops.load(best, part * lanes, lanes)), lanes)
        position = (image, block, 0, 0)
        value = spec.epilogue.value(value, leaves, position, lanes)
        loops.store(result, spec.result.offset(*position), value, lanes)


def _row_sum(spec: MeanSpec, source: loops.Buffer, at: tuple[Any, Any, Any], together: int) -> Any:
    """Several partial sums, because an addition depends on the one before it; in planes a vector of them and what is left."""
    lanes, width = spec.result.lanes * together, spec.source.width
    count, rest = divmod(width, together)
    parts = next(p for p in (8, 7, 6, 5, 4, 3, 2, 1) if count % p == 0)
    sums = loops.local(parts * lanes, spec.accumulator)
    with loops.unroll(parts) as part:
        loops.store(sums, part * lanes, loops.number(0, lanes, spec.accumulator), lanes)
    with loops.serial(count // parts) as turn, loops.unroll(parts) as part:
        place = spec.source.offset(*at, (turn * parts + part) * together)
        pixel = loops.converted(loops.load(source, place, lanes), spec.accumulator, lanes)
        loops.store(sums, part * lanes, loops.load(sums, part * lanes, lanes) + pixel, lanes)
    for place in range(rest):
        last = loops.converted(loops.load(source, spec.source.offset(*at, count * together + place)), spec.accumulator)
        loops.store(sums, place, loops.load(sums, place) + last)
    return sum((loops.load(sums, part * lanes, lanes) for part in range(1, parts)), loops.load(sums, 0, lanes))
