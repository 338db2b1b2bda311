"""Parts of the rule of weighted layers, by themselves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from reconvene.passes.rules.kernel_blocks import any_of


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_what_meets_a_chosen_row_or_column_is_told_group_by_group(groups: int, axis: int) -> None:
    reaches = torch.rand(groups, 3, 4, generator=torch.Generator().manual_seed(1)) < 0.4
    size = 3 if axis == 1 else 4
    for bits in itertools.product([False, True], repeat=groups * size):
        chosen = np.array(bits).reshape(groups, size)
        spread = chosen[:, :, None] if axis == 1 else chosen[:, None]
        assert any_of(reaches, chosen, axis).tolist() == (reaches.numpy() & spread).any(axis).reshape(-1).tolist()
