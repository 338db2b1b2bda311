"""Storage formats: arrays by hand, bytes, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.passes.structures import BlockRows, ColumnGroups, KernelWeights, Pattern, find_structure
from reconvene.passes.structures.packed import bits_of, numbers_in_bits

from .test_structures import SPELLED, weight


@pytest.mark.parametrize("name", SPELLED)
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.98), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_unpacking_gives_the_weight_again(name: str, seed: int, sparsity: float, dtype: torch.dtype) -> None:
    structure = find_structure(name)
    near = structure.project(weight(16, 16, 3, 3, seed=seed).to(dtype), sparsity)
    packed = structure.pack(near)
    found = packed.unpack()
    assert found.dtype == dtype and torch.equal(found, near)
    assert packed.bytes == sum(array.nbytes for array in packed.arrays.values())
    assert structure.storage(near)[packed.name] == packed.bytes


@pytest.mark.parametrize("name", SPELLED)
def test_nothing_at_all_can_be_packed(name: str) -> None:
    packed = find_structure(name).pack(torch.zeros(16, 16, 3, 3))
    assert torch.equal(packed.unpack(), torch.zeros(16, 16, 3, 3))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6), st.floats(0, 1))
def test_rows_of_any_zeros(seed: int, rows: int, columns: int, share: float) -> None:
    """Empty rows, rows that are equal, matrices of one weight."""
    matrix = weight(rows, columns, seed=seed)
    matrix[torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < share] = 0
    assert torch.equal(BlockRows.pack(matrix).unpack(), matrix)
    assert torch.equal(ColumnGroups.pack(matrix).unpack(), matrix)


def test_csr_by_hand() -> None:
    matrix = torch.tensor([[0, 2.0, 0, 1], [0, 0, 0, 0], [3, 0, 4, 5]])
    packed = BlockRows.pack(matrix)
    assert packed.name == "csr" and packed.values.reshape(-1).tolist() == [2, 1, 3, 4, 5]
    assert packed.pointers.tolist() == [0, 2, 2, 5] and packed.columns.tolist() == [1, 3, 0, 2, 3]
    assert packed.bytes == 5 * 4 + 4 + 5
    wide = torch.zeros(1, 300)
    wide[0, 299] = 1
    assert BlockRows.pack(wide).bytes == 4 + 2 + 2


def test_blocks_by_hand() -> None:
    matrix = torch.tensor([[1.0, 0, 0, 2], [3, 0, 0, 4], [0, 5, 0, 0], [0, 6, 0, 0]])
    packed = BlockRows.pack(matrix, filters=2)
    assert packed.name == "block rows" and packed.values.tolist() == [[1, 3], [2, 4], [5, 6]]
    assert packed.pointers.tolist() == [0, 2, 3] and packed.columns.tolist() == [0, 3, 1]
    kernels = torch.zeros(2, 2, 2)
    kernels[1, 0] = torch.tensor([7.0, 8])
    whole = BlockRows.pack(kernels, whole=True)
    assert whole.values.tolist() == [[7, 8]] and whole.columns.tolist() == [0] and whole.pointers.tolist() == [0, 0, 1]


def test_fkw_by_hand() -> None:
    """Filter 1 has two kernels and comes first; its kernels are ordered by pattern."""
    corner, cross = [0, 1, 3, 4], [3, 4, 5, 7]
    kernels = torch.zeros(2, 3, 9)
    kernels[0, 2, cross] = torch.tensor([1.0, 2, 3, 4])
    kernels[1, 0, cross] = torch.tensor([5.0, 6, 7, 8])
    kernels[1, 1, corner] = torch.tensor([9.0, 10, 11, 12])
    packed = Pattern(2).pack(kernels.reshape(2, 3, 3, 3))
    assert isinstance(packed, KernelWeights)
    assert packed.reorder.tolist() == [1, 0] and packed.offset.tolist() == [0, 2, 3]
    assert packed.index.tolist() == [1, 0, 2] and packed.stride.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert packed.values.tolist() == [9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4] and packed.table.tolist() == [
        corner,
        cross,
    ]
    assert packed.bytes == 12 * 4 + 3 + 2 + 3 + 6 + 8


def test_bcrc_by_hand() -> None:
    """Rows 1 and 3 have the same columns, which are stored once."""
    matrix = torch.tensor([[0, 0, 1.0, 0], [2, 0, 3, 0], [0, 0, 0, 0], [4, 0, 5, 0]])
    packed = ColumnGroups.pack(matrix)
    assert packed.reorder.tolist() == [1, 3, 0, 2] and packed.row_offset.tolist() == [0, 2, 4, 5, 5]
    assert packed.occurrence.tolist() == [0, 2, 3, 4] and packed.column_stride.tolist() == [0, 2, 3, 3]
    assert packed.compact_column.tolist() == [0, 2, 2] and packed.values.tolist() == [2, 3, 4, 5, 1]


def test_bcrc_in_strips() -> None:
    """Of the two strips of two channels, the first has equal rows 0 and 1, and the second rows 1 and 2."""
    matrix = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 5], [0, 0, 0, 6]])
    packed = ColumnGroups.pack(matrix, 2)
    assert packed.reorder.tolist() == [0, 1, 4, 5, 2, 3] and packed.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.occurrence.tolist() == [0, 2, 4, 6] and packed.compact_column.tolist() == [0, 1, 1]
    assert packed.column_stride.tolist() == [0, 2, 3, 3] and torch.equal(packed.unpack(), matrix)


def test_places_of_two_of_four_take_two_bits() -> None:
    matrix = torch.tensor([[0, 1.0, 0, 2], [3, 0, 4, 0]])
    packed = find_structure("2:4").pack(matrix)
    assert packed.values.tolist() == [1, 2, 3, 4]
    assert packed.arrays["places"].tolist() == [1 | 3 << 2 | 0 << 4 | 2 << 6]  # type: ignore[union-attr]
    assert packed.bytes == 4 * 4 + 1
    shared = find_structure("2:4:4").project(weight(64, 64).float(), 0)
    assert find_structure("2:4:4").pack(shared).bytes == 64 * 32 * 4 + 64 // 4 * 32 * 2 // 8
    assert find_structure("2:4").pack(shared).bytes == 64 * 32 * 4 + 64 * 32 * 2 // 8


def test_a_group_with_fewer_is_filled_with_zeros() -> None:
    matrix = torch.tensor([[0, 1.0, 0, 0], [0, 0, 0, 0]])
    packed = find_structure("2:4").pack(matrix)
    assert packed.values.numel() == 4 and torch.equal(packed.unpack(), matrix)


def test_unified_blocks_are_a_value_and_signs() -> None:
    matrix = torch.tensor([[0.5, -0.5, 0, 0], [-0.5, -0.5, 0, 0]])
    packed = find_structure("unified:2x2").pack(matrix)
    assert packed.values.tolist() == [0.5] and packed.arrays["present"].tolist() == [1]
    assert packed.arrays["signs"].tolist() == [0b1110] and packed.bytes == 4 + 1 + 1


@given(st.integers(1, 8).flatmap(lambda width: st.tuples(st.just(width), st.lists(st.integers(0, (1 << width) - 1)))))
def test_numbers_in_bits(drawn: tuple[int, list[int]]) -> None:
    width, numbers = drawn
    packed = bits_of(np.array(numbers, np.int64), width)
    assert len(packed) == -(-width * len(numbers) // 8)
    assert numbers_in_bits(packed, width, len(numbers)).tolist() == numbers
