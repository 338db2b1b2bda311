"""The transforms of Winograd's minimal filtering.

They come from polynomial interpolation at 0, pairs of opposite points, and infinity. The points of F(4x4) are the square
roots of 1/2 and 2, whose powers stay near one: that keeps its error five times below that of the usual points 1 and 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.polynomial import polynomial

from . import loops

__all__ = ["Transform", "VectorGrid", "applied", "transform", "transformed_weights"]

Matrix = npt.NDArray[np.float64]

_POINTS = {2: (1.0,), 4: (math.sqrt(0.5), math.sqrt(2.0))}
"""By tile size, the positive interpolation points; their opposites, 0 and infinity are points too."""


@dataclass(frozen=True)
class Transform:
    """The three linear maps of F(m x m, 3 x 3).

    Attributes:
        source, result: of one axis, each as sparse factors to apply in order: the shared even and odd parts
            of opposite points, and their sums and differences.
        weights: ``(m + 2, 3)``, of one axis.
    """

    source: tuple[Matrix, Matrix]
    result: tuple[Matrix, Matrix]
    weights: Matrix


@cache
def transform(size: int) -> Transform:
    """The maps of F(size x size, 3 x 3), for a size of 2 or 4."""
    positive = _POINTS[size]
    points = [0.0, *(sign * point for point in positive for sign in (1.0, -1.0))]
    count = size + 2
    scale = [math.prod(p - q for q in points if q != p) for p in points]
    weights = np.zeros((count, 3))
    weights[:-1] = [[p**k / s for k in range(3)] for p, s in zip(points, scale, strict=True)]
    weights[-1, -1] = 1.0
    butterflies = np.eye(count)
    for pair in range(len(positive)):
        even, odd = 1 + 2 * pair, 2 + 2 * pair
        butterflies[even, odd], butterflies[odd, even], butterflies[odd, odd] = 1.0, 1.0, -1.0
    parts = np.zeros((count, count))
    for row, point in enumerate(points):
        others = polynomial.polyfromroots([q for q in points if q != point])
        parts[row, : len(others)] = others
    for pair in range(len(positive)):
        whole = parts[1 + 2 * pair].copy()
        parts[1 + 2 * pair, 1::2] = 0.0
        parts[2 + 2 * pair] = np.where(np.arange(count) % 2, whole, 0.0)
    parts[-1] = [*polynomial.polyfromroots(points)]
    powers = np.zeros((size, count))
    powers[0, 0] = powers[-1, -1] = 1.0
    for power in range(size):
        for pair, point in enumerate(positive):
            powers[power, (2 if power % 2 else 1) + 2 * pair] = point**power
    return Transform((_clean(parts), butterflies), (butterflies, _clean(powers)), weights)


def _clean(matrix: Matrix) -> Matrix:
    """`matrix` with what is zero or one but for rounding made so."""
    nearest = np.round(matrix * 4) / 4
    return np.where(np.abs(matrix - nearest) < 1e-12, nearest, matrix)


def transformed_weights(kernel: Matrix, size: int) -> Matrix:
    """``(O, I, 3, 3)`` weights as ``(O, I, m + 2, m + 2)``, in the precision they come in."""
    matrix = transform(size).weights
    moved = kernel.reshape(-1, 9) @ np.kron(matrix, matrix).T
    return moved.reshape(*kernel.shape[:2], size + 2, size + 2)


@dataclass(frozen=True)
class VectorGrid:
    """Vectors of `lanes` in rows of `count`, `step` elements from one to the next, from `origin` of a buffer."""

    buffer: Any
    origin: Any
    step: int
    count: int
    lanes: int

    def load(self, row: Any, column: Any) -> Any:
        return loops.load(self.buffer, self._at(row, column), self.lanes)

    def store(self, row: Any, column: Any, value: Any) -> None:
        loops.store(self.buffer, self._at(row, column), value, self.lanes)

    def _at(self, row: Any, column: Any) -> Any:
        return self.origin + (row * self.count + column) * self.step


def applied(stages: Sequence[Matrix], read: Callable[[int], Any], lanes: int) -> list[Any]:
    """Vectors from `read`, through sparse matrices one after the other; every intermediate stays in a register."""
    values = [read(index) for index in range(stages[0].shape[1])]
    for stage in stages:
        inputs = loops.local(len(values) * lanes)
        for index, value in enumerate(values):
            loops.store(inputs, index * lanes, value, lanes)
        values = [_combined(row, inputs, lanes) for row in stage]
    return values


def _combined(row: Matrix, inputs: Any, lanes: int) -> Any:
    """The sum of what `row` has a factor for, positive terms first."""
    total: Any = None
    for index in sorted(np.flatnonzero(row).tolist(), key=lambda i: -row[i]):
        factor, value = float(row[index]), loops.load(inputs, index * lanes, lanes)
        if total is None:
            total = value if factor == 1 else value * loops.number(factor, lanes)
        elif abs(factor) == 1:
            total = total + value if factor > 0 else total - value
        else:
            total = total + value * loops.number(factor, lanes)
    return total
