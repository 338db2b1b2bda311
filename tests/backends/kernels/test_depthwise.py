"""Register tiles of depthwise convolutions."""

from __future__ import annotations

import pytest

from reconvene.backends.kernels.depthwise import depthwise_columns, weights_stay
from reconvene.backends.machines.targets import find_target


@pytest.mark.parametrize(
    ("width", "stride", "columns"), [(56, 1, 14), (28, 1, 14), (7, 1, 7), (10, 1, 10), (56, 2, 7), (1, 1, 1)]
)
def test_no_output_is_computed_twice_where_that_can_be(width: int, stride: int, columns: int) -> None:
    assert depthwise_columns(find_target("rpi4").machine, width, stride, 9) == columns


def test_weights_stay_where_there_are_registers_for_them() -> None:
    large, small = find_target("rpi4").machine, find_target("rpi2").machine
    assert weights_stay(large, 14, 9)
    assert not weights_stay(large, 14, 25)
    assert not weights_stay(small, 4, 9)
