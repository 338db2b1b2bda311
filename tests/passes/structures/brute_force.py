"""All tensors of a structure, counted out from its definition in words, for tensors of a dozen weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALLOWED", "furthest_kept", "pattern_supports"]

Bools = NDArray[np.bool_]
Shape = tuple[int, ...]


@cache
def supports(shape: Shape) -> Bools:
    """Every set of weights of a tensor: 2^weights x shape."""
    weights = int(np.prod(shape))
    numbers = np.arange(1 << weights)[:, None] >> np.arange(weights) & 1
    return numbers.astype(bool).reshape(-1, *shape)


def together(*axes_and_blocks: tuple[int, int]) -> Callable[[Bools], Bools]:
    """Of all sets, those in which blocks of consecutive places along these axes are there as wholes."""

    def allowed(sets: Bools) -> Bools:
        blocks = sets
        for axis, block in sorted(axes_and_blocks, reverse=True):
            shape = blocks.shape
            blocks = blocks.reshape(*shape[: axis + 1], shape[axis + 1] // block, block, *shape[axis + 2 :])
            blocks = np.moveaxis(blocks, axis + 2, -1)
        inner = blocks.reshape(*blocks.shape[: blocks.ndim - len(axes_and_blocks)], -1)
        same: Bools = (inner.all(-1) == inner.any(-1)).reshape(len(sets), -1).all(1)
        return same

    return allowed


def two_of_four(filters: int) -> Callable[[Bools], Bools]:
    """Shape F x 4 (x taps): every filter has two channels at each tap, the same ones for so many filters."""

    def allowed(sets: Bools) -> Bools:
        two: Bools = (sets.sum(2) == 2).reshape(len(sets), -1).all(1)
        return two & together((0, filters))(sets)

    return allowed


def rows_by_columns(filters: int, channels: int, rows: int, columns: int) -> Callable[[Bools], Bools]:
    """Shape F x C x taps: in blocks of so many filters and channels, so many rows by so many columns are there."""

    def allowed(sets: Bools) -> Bools:
        right = np.ones(len(sets), bool)
        for f in range(0, sets.shape[1], filters):
            for c in range(0, sets.shape[2], channels):
                block = sets[:, f : f + filters, c : c + channels].reshape(len(sets), filters, -1)
                has_row, has_column = block.any(2), block.any(1)
                whole = (block == (has_row[:, :, None] & has_column[:, None])).all((1, 2))
                right &= whole & (has_row.sum(1) == rows) & (has_column.sum(1) == columns)
        return right

    return allowed


ALLOWED: tuple[tuple[str, Shape, Callable[[Bools], Bools]], ...] = (
    ("unstructured", (3, 4), lambda sets: np.ones(len(sets), bool)),
    ("row-block:2", (4, 3), together((0, 2))),
    ("row-block:3", (3, 2, 2), together((0, 3))),
    ("block-column:2", (2, 2, 3), together((0, 2))),
    ("block-row:2", (3, 4), together((1, 2))),
    ("block-row:1", (2, 3, 2), together((1, 1), (2, 2))),
    ("block-punched:2x2", (4, 2, 1), together((0, 2), (1, 2))),
    ("block-punched:1x3", (2, 3, 2), together((1, 3))),
    ("dot:1", (1, 4, 3), together((1, 4))),
    ("dot:3", (3, 4), together((0, 3), (1, 4))),
    ("connectivity", (2, 2, 3), together((2, 3))),
    ("connectivity:2", (2, 2, 3), together((0, 2), (2, 3))),
    ("2:4", (3, 4), two_of_four(1)),
    ("2:4:2", (2, 4, 1), two_of_four(2)),
)
"""Structure, shape of a weight, and which sets of its weights may be there."""


def furthest_kept(squares: NDArray[np.float64], allowed: Callable[[Bools], Bools], kept: int) -> float:
    """The most that a set of `kept` weights can retain of the squares, among those that are allowed."""
    sets = supports(squares.shape)
    chosen = sets[allowed(sets) & (sets.reshape(len(sets), -1).sum(1) == kept)]
    return float((chosen * squares).reshape(len(chosen), -1).sum(1).max())


def pattern_supports(shape: Shape, patterns: tuple[int, ...], kernels: int) -> list[Bools]:
    """Shape F x C x 3 x 3: so many kernels, each with one of the patterns."""
    found = []
    for chosen in combinations(range(shape[0] * shape[1]), kernels):
        for drawn in product(patterns, repeat=kernels):
            support = np.zeros((shape[0] * shape[1], 9), bool)
            for kernel, pattern in zip(chosen, drawn, strict=True):
                support[kernel] = [bool(pattern >> position & 1) for position in range(9)]
            found.append(support.reshape(shape))
    return found
