"""Layer normalisation of plain rows; how it sums is as in `normalizing`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .matrices import row_spans
from .tiles import Machine

__all__ = ["RowNormSpec"]

_WIDE = "float64"
_PARTS = 4
"""Vectors of sums that do not wait for each other."""


@dataclass(frozen=True)
class RowNormSpec:
    """Every row along the last axis of `shape` less its mean, divided by the root of its variance and `epsilon`; then times a
    factor and plus an offset for each of its elements.
    """

    family: ClassVar[str] = "row_norm"

    shape: tuple[int, ...]
    lanes: int
    epsilon: float

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: two sums in a type twice as wide, and what is written."""
        return 8.0 * math.prod(self.shape) / self.lanes + 60.0 * math.prod(self.shape[:-1])

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, scale, shift, result)``."""
        width = self.shape[-1]
        arguments = [
            ("source", self.shape, "float32"),
            ("scale", (width,), "float32"),
            ("shift", (width,), "float32"),
            ("result", self.shape, "float32"),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _normalize(self, *buffers))


def _normalize(
    spec: RowNormSpec, source: loops.Buffer, scale: loops.Buffer, shift: loops.Buffer, result: loops.Buffer
) -> None:
    width = spec.shape[-1]
    with loops.parallel(math.prod(spec.shape[:-1])) as row:
        mean = _mean(spec, lambda at, lanes: loops.load(source, row * width + at, lanes))
        near = _number(loops.converted(mean, "float32"))
        rest = _number(loops.converted(mean - loops.converted(near(1), _WIDE), "float32"))

        def deviation(at: Any, lanes: int) -> Any:
            return (loops.load(source, row * width + at, lanes) - near(lanes)) - rest(lanes)

        variance = _mean(spec, deviation, squared=True)
        root = tirx.sqrt(variance + loops.number(spec.epsilon, 1, _WIDE))
        factor = _number(loops.converted(loops.number(1.0, 1, _WIDE) / root, "float32"))
        for start, count, lanes in row_spans(width, spec.lanes):
            with loops.serial(count) as step:
                at = start + step * lanes
                value = deviation(at, lanes) * factor(lanes) * loops.load(scale, at, lanes)
                loops.store(result, row * width + at, value + loops.load(shift, at, lanes), lanes)


def _mean(spec: RowNormSpec, element: Callable[[Any, int], Any], squared: bool = False) -> Any:
    """The mean of a row's elements, or of their squares; float64."""
    found = []
    for start, count, lanes in row_spans(spec.shape[-1], spec.lanes):
        parts = next(parts for parts in range(_PARTS, 0, -1) if count % parts == 0)
        sums = loops.local(parts * lanes, _WIDE)
        with loops.unroll(parts) as part:
            loops.store(sums, part * lanes, loops.number(0.0, lanes, _WIDE), lanes)
        with loops.serial(count // parts) as turn, loops.unroll(parts) as part:
            value = loops.converted(element(start + (turn * parts + part) * lanes, lanes), _WIDE, lanes)
            more = value * value if squared else value
            loops.store(sums, part * lanes, loops.load(sums, part * lanes, lanes) + more, lanes)
        found += [loops.load(sums, place) for place in range(parts * lanes)]
    mean = loops.local(1, _WIDE)
    loops.store(mean, 0, sum(found[1:], found[0]) * loops.number(1.0 / spec.shape[-1], 1, _WIDE))
    return loops.load(mean, 0)


def _number(value: Any) -> Callable[[int], Any]:
    """A number of float32 that is kept: as a vector of so many lanes."""
    room = loops.local(1)
    loops.store(room, 0, value)
    return lambda lanes: loops.broadcast(loops.load(room, 0), lanes)
