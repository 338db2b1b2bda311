"""What kernels may depend on of the zeros in a layer's weights: how many weights there are, in groups of which shapes.

Where the zeros are is packed, as weights are. So two layers that differ in nothing else have the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..graph.nodes import Convolution
from .packed_rows import Blocking, Entries, group_rows, shared_size

__all__ = ["GroupCount", "Zeros", "count_groups", "density", "entries_of", "zeros_in_planes"]

_PADDING = 2.0
"""Multiplications, for each one that is needed, up to which rows are worth grouping: two rows that share no column at all
still need not wait for each other's sums."""
_LITTLE = 1.1
"""Up to which nothing is gained by other groups."""
_LEAST_WIDTH = 32
"""Columns of a chunk, below which more time goes into sums that wait than into products."""
_LEAST_ENTRIES = 8
"""Of a row in a chunk, likewise."""
_CUTS = (2, 4, 8)
"""Chunks of a layer whose window has more than one place, of which one may be what fits the first cache."""


@dataclass(frozen=True)
class GroupCount:
    """How a matrix falls into groups of rows.

    Attributes:
        groups: of all chunks.
        entries: lists of columns have in all, rounded up to a size that layers share.
        chunks: of columns.
    """

    blocking: Blocking
    groups: int
    entries: int
    chunks: int


@dataclass(frozen=True)
class Zeros:
    """Of a layer's weights ``(rows, columns)``, the columns of a row being those of its group of channels.

    Attributes:
        weights: that are not zero, rounded up likewise.
        counts: ways to group the rows that are worth a trial.
    """

    rows: int
    columns: int
    weights: int
    counts: tuple[GroupCount, ...]


def density(convolution: Convolution) -> float:
    """The share of the weights that are not zero."""
    kernel = convolution.weights.kernel
    return float(np.count_nonzero(kernel)) / max(1, kernel.size)


def entries_of(convolution: Convolution) -> Entries:
    """The weights as a matrix of a row for each output, and a column for each input channel and place of the window; the
    channels of all groups follow each other.
    """
    kernel = convolution.weights.kernel
    outputs, inputs, height, width = kernel.shape
    matrix = kernel.reshape(outputs, -1)
    row, column = np.nonzero(matrix)
    group = row // (outputs // convolution.groups)
    every = inputs * height * width
    return Entries(outputs, convolution.groups * every, row, group * every + column, matrix[row, column])


def zeros_in_planes(convolution: Convolution, given: Sequence[Blocking] = ()) -> Zeros:
    """For kernels that take any rows together, and whose vectors run along pixels; in the groups that are `given`, if any."""
    entries, kernel = entries_of(convolution), convolution.weights.kernel
    if given:
        found = tuple(count_groups(entries, blocking) for blocking in given)
        return Zeros(entries.rows, kernel[0].size, shared_size(len(entries.row)), found)
    window = kernel.shape[2] * kernel.shape[3]
    counts = [count_groups(entries, Blocking(1, entries.columns))]
    four = count_groups(entries, Blocking(4, entries.columns))
    if _padding(four, entries) <= _LITTLE:
        eight = count_groups(entries, Blocking(8, entries.columns))
        counts = [four, *([eight] if _padding(eight, entries) <= _LITTLE else [])]
    else:
        two = count_groups(entries, Blocking(2, entries.columns))
        chunks = _count_in_chunks(entries, window)
        counts += [count for count in (two, four, *chunks) if _padding(count, entries) <= _PADDING]
        counts += _counts_by_row(entries, window)
    return Zeros(entries.rows, kernel[0].size, shared_size(len(entries.row)), tuple(counts))


def count_groups(entries: Entries, blocking: Blocking) -> GroupCount:
    """How many groups there are, and how long their lists."""
    found = group_rows(entries, blocking)
    return GroupCount(blocking, len(found.chunk), shared_size(found.entries), found.chunks)


def _padding(count: GroupCount, entries: Entries) -> float:
    return count.entries * count.blocking.height / max(1, len(entries.row))


def _counts_by_row(entries: Entries, window: int) -> list[GroupCount]:
    """Every row by itself, in chunks of equally many input channels. What a chunk reads is read again by every row: it is
    worth something that it stays in the first cache.
    """
    channels, least = entries.columns // window, _LEAST_ENTRIES * entries.rows
    cuts = [cut for cut in _CUTS if cut <= channels and len(entries.row) >= cut * least]
    return [count_groups(entries, Blocking(1, -(-channels // cut) * window)) for cut in cuts] if window > 1 else []


def _count_in_chunks(entries: Entries, window: int) -> list[GroupCount]:
    """The widest chunks in which rows share columns; of whole input channels."""
    least = window
    while least < _LEAST_WIDTH:
        least *= 2
    widths = [least << step for step in range(5) if least << step < entries.columns]
    if not widths or _padding(count_groups(entries, Blocking(4, widths[0])), entries) > 1.5 * _LITTLE:
        return []
    found = (count_groups(entries, Blocking(4, width)) for width in reversed(widths))
    return [count for count in found if _padding(count, entries) <= 1.5 * _LITTLE][:2]
