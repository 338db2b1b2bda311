"""What kernels whose vectors run along output channels may depend on of the zeros in a layer's weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.nodes import Convolution
from .dots import dot_steps
from .packed_rows import Blocking, Entries, shared_size
from .zeros import GroupCount, count_groups, density, entries_of

__all__ = ["RowZeros", "zeros_in_rows"]

_DENSE = 0.8
"""Products, of those of all weights, zeros too, above which the kernel of all weights is as fast."""
_LITTLE = 1.1
"""How many times the products of rows that go together by their columns those of neighbouring rows may be: their sums need
not be put in order."""
_PADDING = 1.65
"""Products, for each one that is needed, up to which groups of chunks are worth their sums."""
_LEAST_WIDTH = 32
"""Columns of a chunk, below which more time goes into sums that wait than into products."""
_VECTORS = (1, 2, 4, 8)
"""Vectors of rows in a group."""


@dataclass(frozen=True)
class RowZeros:
    """Of a layer's weights ``(rows, columns)``.

    Attributes:
        weights: that are not zero, rounded up to a size that layers share.
        steps: vectors of weights of all rows, each row's by themselves, rounded up likewise.
        counts: ways to group the rows that are worth a trial.
    """

    rows: int
    columns: int
    weights: int
    steps: int
    counts: tuple[GroupCount, ...]


def zeros_in_rows(convolution: Convolution, lanes: int) -> RowZeros | None:
    """For groups of whole vectors of `lanes` rows; None where there are too few zeros for any of them."""
    if density(convolution) > _DENSE:
        return None
    entries = entries_of(convolution)
    heights = [lanes * vectors for vectors in _VECTORS if vectors == 1 or lanes * vectors <= entries.rows]
    counts = [_whole(entries, height) for height in heights]
    window = convolution.weights.kernel.shape[2] * convolution.weights.kernel.shape[3]
    for whole in counts[:2]:
        if whole.entries * whole.blocking.height > _LITTLE * len(entries.row):
            counts += _in_chunks(entries, whole.blocking.height, window)
    every = entries.rows * entries.columns
    found = tuple(count for count in counts if count.entries * count.blocking.height <= _DENSE * every)
    steps = dot_steps(np.bincount(entries.row, minlength=entries.rows), lanes)
    return RowZeros(entries.rows, entries.columns, shared_size(len(entries.row)), steps, found)


def _whole(entries: Entries, height: int) -> GroupCount:
    """Of neighbouring rows, unless others share clearly more columns."""
    neighbours = count_groups(entries, Blocking(height, entries.columns, in_order=True))
    if neighbours.entries * height <= _LITTLE * len(entries.row):
        return neighbours
    alike = count_groups(entries, Blocking(height, entries.columns))
    return neighbours if neighbours.entries <= _LITTLE * alike.entries else alike


def _in_chunks(entries: Entries, height: int, window: int) -> list[GroupCount]:
    """The widest chunks, of whole input channels, in which rows share columns: none where not even the narrowest do."""
    least = window
    while least < _LEAST_WIDTH:
        least *= 2
    widths = [least << step for step in range(5) if least << step < entries.columns]
    if not widths:
        return []
    narrow = count_groups(entries, Blocking(height, widths[0]))
    if narrow.entries * height > _PADDING * len(entries.row):
        return []
    wider = (count_groups(entries, Blocking(height, width)) for width in reversed(widths[1:]))
    return [next((count for count in wider if count.entries * height <= _PADDING * len(entries.row)), narrow)]
