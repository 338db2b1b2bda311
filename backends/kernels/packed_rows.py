"""Matrices with zeros, packed for kernels that gather their inputs: the one format of all structures of zeros.

Rows that are computed together share one list of columns. A group of `height` rows has a column once if any of its rows has
a weight there, and `height` weights beside it; a row without one there has a zero. So what a structure of zeros is called
does not matter, only how many rows have the same columns: one for zeros anywhere, 2 to 64 for blocks.

Columns may be cut into chunks. Each has groups of its own, of other rows with other partners, which add to what the chunks
before it gave. That is what rows want that share columns in some blocks of the matrix and not in others.

Row-block gather is compressed sparse rows (a group of one row) and the reordered blocks of GRIM (arXiv:2108.11033), BLK-REW
(arXiv:2001.08357) and block-punched weights (arXiv:2111.11581) in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = [
    "Blocking",
    "Entries",
    "Grouping",
    "PackedRows",
    "even_spans",
    "group_rows",
    "pack_rows",
    "shared_size",
    "unpack_rows",
]

Indices = npt.NDArray[np.int64]

_STEPS = 32
"""Sizes of tables are rounded up to so many steps an octave, so that layers with about as many weights share a kernel: at
most 6 % more bytes, which are never read."""


@dataclass(frozen=True)
class Blocking:
    """How the rows of a matrix are grouped.

    Attributes:
        height: rows of a group.
        width: columns of a chunk; as many as the matrix has, or more, for a single chunk.
        in_order: whether a group is rows that follow each other, and the next group those behind them.
    """

    height: int
    width: int
    in_order: bool = False


@dataclass(frozen=True, eq=False)
class Entries:
    """The weights of a matrix ``(rows, columns)`` that are not zero, by row, then by column.

    Attributes:
        row, column, weight: of each, ``(n,)``.
    """

    rows: int
    columns: int
    row: Indices
    column: Indices
    weight: npt.NDArray[np.float64]

    @classmethod
    def of(cls, matrix: npt.NDArray[np.float64]) -> Entries:
        """Those of a matrix that is written out."""
        row, column = np.nonzero(matrix)
        return cls(matrix.shape[0], matrix.shape[1], row, column, matrix[row, column])


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which rows are computed together.

    Attributes:
        chunk: of each group, ascending, ``(groups,)``.
        rows: of each group, ``(groups, height)``. One that is not full has its last row several times.
        lengths: how many columns each has, ``(groups,)``.
        chunks: there are.
    """

    blocking: Blocking
    chunk: Indices
    rows: Indices
    lengths: Indices
    chunks: int

    @property
    def entries(self) -> int:
        """Columns of all groups, for each of which there are `height` weights."""
        return int(self.lengths.sum())


@dataclass(frozen=True, eq=False)
class PackedRows:
    """A matrix as groups of rows.

    Attributes:
        rows: of each group, ``(groups, height)`` int32.
        starts: the first entry of each group, and the end, ``(groups + 1,)`` int32.
        spans: the first group of each chunk, and the end, ``(chunks + 1,)`` int32.
        columns: of each entry, ``(size,)`` int32: those of the groups, and behind them zeros up to a size that layers share.
        weights: of each entry, ``(size, height)``.
    """

    rows: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int32]
    spans: npt.NDArray[np.int32]
    columns: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float64]


def shared_size(count: int) -> int:
    """`count` or a little more, such that few sizes occur."""
    step = 1 << max(0, count.bit_length() - _STEPS.bit_length())
    return max(1, -(-count // step) * step)


def group_rows(entries: Entries, blocking: Blocking) -> Grouping:
    """Rows that have the same columns in a chunk come together, as many to a group as it takes, or most of that; those that
    are left over follow in their order. A chunk's groups are in the order of their lengths: neighbouring loops are alike.

    Every row is in the first chunk and in the last; in between, a row without weights is left out.
    """
    chunks = max(1, -(-entries.columns // blocking.width))
    chunk = entries.column // blocking.width
    there = np.zeros((chunks, entries.rows), bool)
    there[chunk, entries.row] = there[0] = there[-1] = True
    present = np.flatnonzero(there)
    owner = np.searchsorted(present, chunk * entries.rows + entries.row)
    if blocking.in_order:
        keys = present // entries.rows * -(-entries.rows // blocking.height) + present % entries.rows // blocking.height
        group = _numbered(keys)
    else:
        support = _supports(owner, entries.column, len(present))
        group = _alike(present // entries.rows, support, blocking.height)
    count = int(group.max()) + 1
    lengths = _used(entries, blocking, group[owner], count).sum(axis=1)
    member = np.argsort(group, kind="stable")
    first = np.searchsorted(group[member], np.arange(count + 1))
    places = np.minimum(first[:-1, None] + np.arange(blocking.height), first[1:, None] - 1)
    rows, of_chunk = present[member[places]] % entries.rows, present[member[first[:-1]]] // entries.rows
    order = np.arange(count) if blocking.in_order else np.lexsort((-lengths, of_chunk))
    return Grouping(blocking, of_chunk[order], rows[order], lengths[order], chunks)


def pack_rows(entries: Entries, grouping: Grouping) -> PackedRows:
    """The weights of `entries` in the groups of `grouping`, which was made from them."""
    height, count = grouping.blocking.height, len(grouping.chunk)
    groups, places = np.full((2, grouping.chunks * entries.rows), -1)
    for place in reversed(range(height)):
        key = grouping.chunk * entries.rows + grouping.rows[:, place]
        groups[key], places[key] = np.arange(count), place
    key = entries.column // grouping.blocking.width * entries.rows + entries.row
    used = _used(entries, grouping.blocking, groups[key], count)
    owner, column = np.nonzero(used)
    size = shared_size(len(owner))
    columns, weights = np.zeros(size, "int32"), np.zeros((size, height))
    columns[: len(owner)] = grouping.chunk[owner] * used.shape[1] + column
    number = np.cumsum(used).reshape(used.shape) - 1
    weights[number[groups[key], entries.column % used.shape[1]], places[key]] = entries.weight
    for place in range(1, height):
        again = np.flatnonzero((grouping.rows[:, place] == grouping.rows[:, place - 1])[owner])
        weights[again, place] = weights[again, place - 1]
    starts = np.concatenate([[0], np.cumsum(grouping.lengths)])
    spans = np.searchsorted(grouping.chunk, np.arange(grouping.chunks + 1))
    return PackedRows(grouping.rows.astype("int32"), starts.astype("int32"), spans.astype("int32"), columns, weights)


def even_spans(packed: PackedRows, parts: int) -> npt.NDArray[np.int32]:
    """The first group of each of `parts` of about as many entries."""
    wanted = np.arange(1, parts) * (int(packed.starts[-1]) / parts)
    inner = np.searchsorted(packed.starts, wanted)
    return np.concatenate([[0], inner, [len(packed.rows)]]).astype("int32")


def unpack_rows(packed: PackedRows, shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """The matrix of `shape` that was packed."""
    matrix = np.zeros(tuple(shape))
    for group, rows in enumerate(packed.rows):
        span = slice(int(packed.starts[group]), int(packed.starts[group + 1]))
        # Chunks have other columns each, so nothing is there before.
        matrix[np.ix_(rows, packed.columns[span])] = packed.weights[span].T
    return matrix


def _used(entries: Entries, blocking: Blocking, group: Indices, count: int) -> npt.NDArray[np.bool_]:
    """Which columns of its chunk each of `count` groups has, ``(groups, width)``, from the group of each entry."""
    width = max(1, min(blocking.width, entries.columns))
    used = np.zeros((count, width), bool)
    used[group, entries.column % width] = True
    return used


def _numbered(keys: Indices) -> Indices:
    """The place of each key among the different ones, in their order."""
    found: Indices = np.unique(keys, return_inverse=True)[1]
    return found


def _supports(owner: Indices, column: Indices, count: int) -> npt.NDArray[np.uint64]:
    """A number for the columns of each of `count` rows of chunks: equal for equal columns, and hardly ever for others.

    If it should be, two rows without the same columns are in a group, which has the columns of both.
    """
    words = np.random.default_rng(0).integers(1, 2**63, int(column.max(initial=0)) + 1, dtype="uint64")
    found = np.zeros(count, "uint64")
    np.add.at(found, owner, words[column])
    return found


def _alike(chunk: Indices, support: npt.NDArray[np.uint64], height: int) -> Indices:
    """The group of each row of a chunk: those of equal supports, then what is left over, in order."""
    count = len(chunk)
    classes = np.lexsort((support, chunk))
    new = np.ones(count, bool)
    new[1:] = (chunk[classes][1:] != chunk[classes][:-1]) | (support[classes][1:] != support[classes][:-1])
    number = np.cumsum(new) - 1
    begin = np.nonzero(new)[0]
    place, size = np.arange(count) - begin[number], np.diff(np.append(begin, count))[number]
    group, whole = np.empty(count, "int64"), np.empty(count, bool)
    # A class is known by the first row that is in it.
    group[classes] = classes[begin[number]] * count + place // height
    # What is left of a class is a group too, if that is most of one.
    whole[classes] = place < (size + (height - 1) // 2) // height * height
    rest = np.nonzero(~whole)[0]
    within = np.arange(len(rest)) - np.searchsorted(chunk[rest], chunk[rest])
    group[rest] = count * count + chunk[rest] * count + within // height
    return _numbered(group)
