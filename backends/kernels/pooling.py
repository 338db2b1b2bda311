"""Pooling windows and the mean over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border
from .scalar import Vectors

__all__ = ["MeanSpec", "PoolSpec"]


@dataclass(frozen=True)
class PoolSpec:
    """A pooling; `kind` is ``max`` or ``average``, `padding` above and to the left."""

    family: ClassVar[str] = "pool"

    kind: str
    source: View
    result: View
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    counts_padding: bool
    epilogue: Epilogue

    @property
    def inside(self) -> bool:
        """Whether every window lies within the image."""
        bottom = (self.result.height - 1) * self.stride[0] + self.window[0]
        right = (self.result.width - 1) * self.stride[1] + self.window[1]
        return self.padding == (0, 0) and bottom <= self.source.height and right <= self.source.width

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        return loops.kernel(name, _arguments(self), lambda *buffers: _pool(self, *buffers))


@dataclass(frozen=True)
class MeanSpec:
    """The mean over all pixels of every channel."""

    family: ClassVar[str] = "mean"

    source: View
    result: View
    epilogue: Epilogue

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        return loops.kernel(name, _arguments(self), lambda *buffers: _mean(self, *buffers))


def _arguments(spec: PoolSpec | MeanSpec) -> list[tuple[str, Sequence[int], str]]:
    return [
        ("source", *spec.source.argument),
        *spec.epilogue.arguments(),
        ("result", *spec.result.argument),
    ]


def _pool(spec: PoolSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.result, spec.result.lanes
    clear_border(result, view)
    with view.lines() as (image, block, row, _), loops.serial(view.width) as column:
        position = (image, block, row, column)
        value = _maximum(spec, source, position) if spec.kind == "max" else _average(spec, source, position)
        loops.store(result, view.offset(*position), spec.epilogue.value(value, leaves, position, lanes), lanes)


def _corner(spec: PoolSpec, position: tuple[Any, Any, Any, Any]) -> tuple[Any, Any]:
    return (
        position[2] * spec.stride[0] - spec.padding[0],
        position[3] * spec.stride[1] - spec.padding[1],
    )


def _clamped(index: Any, extent: int, inside: bool) -> Any:
    return index if inside else tirx.max(loops.at_most(index, extent - 1), tirx.const(0, "int32"))


def _maximum(spec: PoolSpec, source: loops.Buffer, position: tuple[Any, Any, Any, Any]) -> Any:
    """Indices outside are moved to the nearest pixel: it is in the window too, so the maximum stays the
    same.
    """
    top, left = _corner(spec, position)
    pixels = []
    for kh, kw in product(range(spec.window[0]), range(spec.window[1])):
        row = _clamped(top + kh, spec.source.height, spec.inside)
        column = _clamped(left + kw, spec.source.width, spec.inside)
        pixels.append(loops.load(source, spec.source.offset(*position[:2], row, column), spec.result.lanes))
    vectors = Vectors(spec.result.lanes, spec.epilogue.keeps_nans)
    return reduce(vectors.maximum, pixels) if vectors.keeps_nans else _largest(pixels, vectors)


def _largest(pixels: Sequence[Any], vectors: Vectors) -> Any:
    """NaN is looked for beside the maximum, which loses it: one comparison finds it in two pixels."""
    pairs = zip(pixels[::2], [*pixels[1::2], pixels[0]], strict=False)
    found = reduce(tirx.Or, [tirx.Or(tirx.isnan(a), tirx.isnan(b)) for a, b in pairs])
    return tirx.Select(found, vectors.number(math.nan), reduce(tirx.max, pixels))


def _average(spec: PoolSpec, source: loops.Buffer, position: tuple[Any, Any, Any, Any]) -> Any:
    """Pixels outside count as zero, and in the divisor only where `counts_padding` says so."""
    lanes = spec.result.lanes
    top, left = _corner(spec, position)
    total = loops.local(lanes)
    loops.store(total, 0, loops.number(0.0, lanes), lanes)
    with loops.serial(spec.window[0]) as kh, loops.unroll(spec.window[1]) as kw:
        row = _clamped(top + kh, spec.source.height, spec.inside)
        column = _clamped(left + kw, spec.source.width, spec.inside)
        pixel = loops.load(source, spec.source.offset(position[0], position[1], row, column), lanes)
        if not spec.inside:
            within = tirx.all(tirx.EQ(row, top + kh), tirx.EQ(column, left + kw))
            pixel = tirx.Select(loops.broadcast(within, lanes), pixel, loops.number(0.0, lanes))
        loops.store(total, 0, loops.load(total, 0, lanes) + pixel, lanes)
    return loops.load(total, 0, lanes) * loops.broadcast(_share(spec, top, left), lanes)


def _share(spec: PoolSpec, top: Any, left: Any) -> Any:
    """One divided by the number of pixels that count."""
    if spec.inside or spec.counts_padding:
        return loops.number(1.0 / (spec.window[0] * spec.window[1]))
    zero = tirx.const(0, "int32")
    rows = loops.at_most(top + spec.window[0], spec.source.height) - tirx.max(top, zero)
    columns = loops.at_most(left + spec.window[1], spec.source.width) - tirx.max(left, zero)
    return loops.number(1.0) / (rows * columns).astype("float32")


def _mean(spec: MeanSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    """Several partial sums, because an addition depends on the one before it, and those of each row by themselves: a long
    sum loses what is added to it last.
    """
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.result, spec.result.lanes
    height, width = spec.source.height, spec.source.width
    parts = next(p for p in (8, 7, 6, 5, 4, 3, 2, 1) if width % p == 0)
    clear_border(result, view)
    with view.planes() as (image, block):
        total, sums = loops.local(lanes), loops.local(parts * lanes)
        loops.store(total, 0, loops.number(0.0, lanes), lanes)
        with loops.serial(height) as row:
            with loops.unroll(parts) as part:
                loops.store(sums, part * lanes, loops.number(0.0, lanes), lanes)
            with loops.serial(width // parts) as column, loops.unroll(parts) as part:
                offset = spec.source.offset(image, block, row, column * parts + part)
                pixel = loops.load(source, offset, lanes)
                loops.store(sums, part * lanes, loops.load(sums, part * lanes, lanes) + pixel, lanes)
            value = loops.load(sums, 0, lanes)
            for part in range(1, parts):
                value = value + loops.load(sums, part * lanes, lanes)
            loops.store(total, 0, loops.load(total, 0, lanes) + value, lanes)
        value = loops.load(total, 0, lanes) * loops.number(1.0 / (height * width), lanes)
        position = (image, block, 0, 0)
        loops.store(result, view.offset(*position), spec.epilogue.value(value, leaves, position, lanes), lanes)
