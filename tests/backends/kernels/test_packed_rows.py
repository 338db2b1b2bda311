"""Rows of a matrix with zeros in groups: which rows come together, at which cost, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.backends.kernels.packed_rows import Blocking, Entries, group_rows, pack_rows, shared_size, unpack_rows

SHAPES = st.tuples(st.integers(1, 13), st.integers(1, 17))


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Rows that share columns by twos, threes or not at all, in some order, with a few zeros more."""
    rows, columns = draw(SHAPES)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shared = draw(st.integers(1, 4))
    mask = np.repeat(random.random((-(-rows // shared), columns)) < draw(st.floats(0, 1)), shared, axis=0)[:rows]
    mask &= random.random(mask.shape) < draw(st.sampled_from([1.0, 0.9]))
    return np.where(mask, random.integers(1, 100, mask.shape), 0)[random.permutation(rows)].astype("float64")


def blocking() -> st.SearchStrategy[Blocking]:
    return st.builds(Blocking, st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 20), st.booleans())


@given(matrices(), blocking())
@settings(max_examples=200, deadline=None)
def test_packed_rows_are_unpacked_to_what_they_were(matrix: np.ndarray, blocking: Blocking) -> None:
    entries = Entries.of(matrix)
    grouping = group_rows(entries, blocking)
    packed = pack_rows(entries, grouping)
    np.testing.assert_array_equal(unpack_rows(packed, matrix.shape), matrix)
    assert packed.weights.shape == (len(packed.columns), blocking.height)
    assert len(packed.columns) == shared_size(grouping.entries)
    assert packed.starts.tolist() == [0, *np.cumsum(grouping.lengths)]


@given(matrices(), blocking())
@settings(max_examples=100, deadline=None)
def test_what_a_kernel_may_rely_on(matrix: np.ndarray, blocking: Blocking) -> None:
    """Every row once in the first chunk and in the last, and at most once in any other; columns of its chunk only."""
    entries = Entries.of(matrix)
    grouping = group_rows(entries, blocking)
    packed = pack_rows(entries, grouping)
    for chunk, (first, last) in enumerate(zip(packed.spans, packed.spans[1:], strict=False)):
        members = [sorted(set(rows.tolist())) for rows in packed.rows[first:last]]
        flat = sorted(row for rows in members for row in rows)
        assert len(flat) == len(set(flat))
        if chunk in (0, grouping.chunks - 1):
            assert flat == list(range(len(matrix)))
        lengths = np.diff(packed.starts)[first:last]
        if blocking.in_order:
            assert all(max(rows) // blocking.height == min(rows) // blocking.height for rows in members)
        else:
            assert (np.diff(lengths) <= 0).all()
        columns = packed.columns[packed.starts[first] : packed.starts[last]]
        assert ((columns // blocking.width) == chunk).all()
    # A group that is not full has its last row again, with the same weights: whoever computes both stores the same twice.
    for group, rows in enumerate(packed.rows):
        span = slice(packed.starts[group], packed.starts[group + 1])
        for place in range(1, blocking.height):
            if rows[place] == rows[place - 1]:
                np.testing.assert_array_equal(packed.weights[span, place], packed.weights[span, place - 1])


def test_rows_with_the_same_columns_come_together() -> None:
    """By hand: rows 0, 2 and 5 share columns, 1 and 4 do, row 3 is alone."""
    matrix = np.zeros((6, 4))
    matrix[np.ix_([0, 2, 5], [0, 3])] = [[1, 2], [3, 4], [5, 6]]
    matrix[np.ix_([1, 4], [1, 2])] = [[7, 8], [9, 10]]
    matrix[3, 2] = 11
    packed = pack_rows(Entries.of(matrix), group_rows(Entries.of(matrix), Blocking(2, 4)))
    # Full groups first, the longer ones in front; what is left over of each class is put together: rows 3 and 5.
    assert packed.rows.tolist() == [[3, 5], [0, 2], [1, 4]]
    assert packed.starts.tolist() == [0, 3, 5, 7]
    assert packed.columns[:7].tolist() == [0, 2, 3, 0, 3, 1, 2]
    assert packed.weights[:7].tolist() == [[0, 5], [11, 0], [0, 6], [1, 3], [2, 4], [7, 9], [8, 10]]


def test_rows_that_share_columns_in_some_chunks_only() -> None:
    """Rows 0 and 1 are a pair in the first chunk, 0 and 2 in the second: nothing is padded, as it would be in one chunk."""
    matrix = np.array([[1, 0, 5, 0], [2, 0, 0, 7], [0, 3, 6, 0], [0, 4, 0, 8]], "float64")
    entries = Entries.of(matrix)
    cut, whole = group_rows(entries, Blocking(2, 2)), group_rows(entries, Blocking(2, 4))
    assert (cut.entries, whole.entries) == (4, 6)
    packed = pack_rows(entries, cut)
    assert packed.rows.tolist() == [[0, 1], [2, 3], [0, 2], [1, 3]] and packed.spans.tolist() == [0, 2, 4]


@pytest.mark.parametrize("shape", [(3, 5), (1, 1)])
def test_a_matrix_of_zeros(shape: tuple[int, int]) -> None:
    entries = Entries.of(np.zeros(shape))
    packed = pack_rows(entries, group_rows(entries, Blocking(2, 2)))
    assert len(packed.columns) == 1 and not unpack_rows(packed, shape).any()


@given(st.integers(0, 10**7))
def test_few_sizes_of_tables_occur(count: int) -> None:
    size = shared_size(count)
    assert count <= size <= max(1, count * 17 / 16)
    assert size < 64 or len({shared_size(other) for other in range(size, size + 32)}) < 32
