"""Kernels of attention, on plain rows: products of two computed matrices, and softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from ..dtypes import DTYPES
from . import loops
from .scalar import exponential
from .tiles import Machine
from .vectors import Vectors

__all__ = ["ProductSpec", "SoftmaxSpec", "row_spans"]


@dataclass(frozen=True)
class ProductSpec:
    """``left @ right`` for every matrix of the batch; `rows` x `vectors` results of `lanes` are in registers."""

    family: ClassVar[str] = "product"

    left: tuple[int, ...]
    right: tuple[int, ...]
    lanes: int
    rows: int
    vectors: int
    dtype: str = "float32"

    @property
    def accumulator(self) -> str:
        """The type of its sums."""
        return DTYPES[self.dtype].accumulator

    @property
    def result(self) -> tuple[int, ...]:
        """Shape of the result."""
        return (*self.left[:-1], self.right[-1])

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: its products."""
        return math.prod(self.left) * -(-self.right[-1] // self.lanes) / machine.rate

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(left, right, result)``."""
        arguments = [
            ("left", self.left, self.dtype),
            ("right", self.right, self.dtype),
            ("result", self.result, self.dtype),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _product(self, *buffers))


@dataclass(frozen=True)
class SoftmaxSpec:
    """Softmax along the last axis of `shape`. A masked element (minus infinity) gets 0, a row of nothing else NaN."""

    family: ClassVar[str] = "softmax"

    shape: tuple[int, ...]
    lanes: int
    keeps_nans: bool = False
    dtype: str = "float32"

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: about twenty products for each exponential."""
        return 20.0 * math.prod(self.shape) / self.lanes / machine.rate

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, result)``."""
        arguments = [("source", self.shape, self.dtype), ("result", self.shape, self.dtype)]
        return loops.kernel(name, arguments, lambda *buffers: _softmax(self, *buffers))


def _product(spec: ProductSpec, left: loops.Buffer, right: loops.Buffer, result: loops.Buffer) -> None:
    """The last tiles are moved back, as in convolutions, so that no row or column is left for a slower loop."""
    height, width = spec.result[-2:]
    row_tiles, span = -(-height // spec.rows), spec.vectors * spec.lanes
    with loops.parallel(math.prod(spec.result[:-2]) * row_tiles) as work:
        image, top = work // row_tiles, loops.tile_start(work % row_tiles, spec.rows, height)
        with loops.serial(-(-width // span)) as column_tile:
            first = loops.tile_start(column_tile, span, width)
            sums = loops.local(spec.rows * span, spec.accumulator)
            with loops.unroll(spec.rows * spec.vectors) as slot:
                loops.store(sums, slot * spec.lanes, loops.number(0.0, spec.lanes, spec.accumulator), spec.lanes)
            _reduce(spec, sums, left, right, (image, top, first))
            with loops.unroll(spec.rows) as y, loops.unroll(spec.vectors) as x:
                offset = (image * height + top + y) * width + first + x * spec.lanes
                value = loops.load(sums, (y * spec.vectors + x) * spec.lanes, spec.lanes)
                loops.store(result, offset, value, spec.lanes)


def _reduce(
    spec: ProductSpec,
    sums: loops.Buffer,
    left: loops.Buffer,
    right: loops.Buffer,
    corner: tuple[Any, Any, Any],
) -> None:
    image, top, first = corner
    height, width = spec.result[-2:]
    depth, lanes = spec.left[-1], spec.lanes
    with loops.serial(depth) as k, loops.unroll(spec.rows) as y, loops.unroll(spec.vectors) as x:
        element = loops.load(left, (image * height + top + y) * depth + k)
        vector = loops.load(right, (image * depth + k) * width + first + x * lanes, lanes)
        slot = (y * spec.vectors + x) * lanes
        product = loops.broadcast(element, lanes) * vector
        loops.store(sums, slot, loops.load(sums, slot, lanes) + product, lanes)


def _softmax(spec: SoftmaxSpec, source: loops.Buffer, result: loops.Buffer) -> None:
    """Largest element, exponentials and their sum, quotient: three passes over a row that stays in cache."""
    width = spec.shape[-1]
    spans = row_spans(width, spec.lanes)
    with loops.parallel(math.prod(spec.shape[:-1])) as row:
        largest = _largest(source, row * width, spans)
        sums = []
        for start, count, lanes in spans:
            total = _register(0.0, lanes)
            with loops.serial(count) as step:
                offset = row * width + start + step * lanes
                value = loops.load(source, offset, lanes) - loops.broadcast(loops.load(largest, 0), lanes)
                loops.store(result, offset, exponential(Vectors(lanes, spec.keeps_nans), value), lanes)
                loops.store(total, 0, loops.load(total, 0, lanes) + loops.load(result, offset, lanes), lanes)
            sums += [loops.load(total, lane) for lane in range(lanes)]
        share = loops.local(1)
        loops.store(share, 0, loops.number(1.0) / sum(sums[1:], sums[0]))
        for start, count, lanes in spans:
            with loops.serial(count) as step:
                offset = row * width + start + step * lanes
                factor = loops.broadcast(loops.load(share, 0), lanes)
                loops.store(result, offset, loops.load(result, offset, lanes) * factor, lanes)


def _largest(source: loops.Buffer, row: Any, spans: list[tuple[int, int, int]]) -> loops.Buffer:
    """A register with the largest element of the row."""
    found = []
    for start, count, lanes in spans:
        best = _register(-math.inf, lanes)
        with loops.serial(count) as step:
            value = loops.load(source, row + start + step * lanes, lanes)
            loops.store(best, 0, tirx.max(loops.load(best, 0, lanes), value), lanes)
        found += [loops.load(best, lane) for lane in range(lanes)]
    largest = _register(-math.inf, 1)
    for value in found:
        loops.store(largest, 0, tirx.max(loops.load(largest, 0), value))
    return largest


def row_spans(width: int, lanes: int) -> list[tuple[int, int, int]]:
    """Start, count and lanes of a row's whole vectors, and of the single elements after them."""
    whole = width // lanes
    spans = [(0, whole, lanes), (whole * lanes, width % lanes, 1)]
    return [span for span in spans if span[1]]


def _register(value: float, lanes: int) -> loops.Buffer:
    register = loops.local(lanes)
    loops.store(register, 0, loops.number(value, lanes), lanes)
    return register
