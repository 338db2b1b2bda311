"""What becomes of sums: which are small enough to be floats' bits, and pixels that are stored together."""

from __future__ import annotations

import numpy as np
import pytest

from reconvene.backends.graph.nodes import Weights
from reconvene.backends.kernels.codes import MOVED, SMALL
from reconvene.backends.kernels.epilogue import Epilogue, Operand, Step
from reconvene.backends.kernels.integer_results import _parts, moves_sums, sums_are_small

REQUANTIZE = Step("requantize", (0.0, 3.0, -128.0, 127.0), (Operand("anchor"), Operand("leaf")))


def weights(*values: int, bias: int = 0) -> Weights:
    return Weights(np.array(values, "int64").reshape(1, -1, 1, 1), np.array([bias], "int64"))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_small_sum(sign: int) -> None:
    """The least code is -128 and the largest 127: of a weight of 1 the sum is at most 127, and at least -128."""
    most = SMALL - 1 - (127 if sign > 0 else 128)
    assert sums_are_small(weights(1, bias=sign * most))
    assert not sums_are_small(weights(1, bias=sign * (most + 1)))


def test_weights_of_either_sign_add_up() -> None:
    count = SMALL // (127 * 128)
    values = [127 if number % 2 else -127 for number in range(2 * count)]
    assert sums_are_small(weights(*values[:count])) and not sums_are_small(weights(*values))


@pytest.mark.parametrize("number", [-SMALL + 1, -1, 0, 1, SMALL - 1])
def test_a_small_number_is_a_floats_bits(number: int) -> None:
    assert np.array([number + MOVED], "int32").view("float32")[0] - np.float32(12582912.0) == np.float32(number)


def test_sums_are_moved_where_they_become_codes_and_no_more() -> None:
    shifted = Step("code_shift", (1.0,), (Operand("step", 0),))
    assert moves_sums(Epilogue((REQUANTIZE,)), "sdot") and not moves_sums(Epilogue((REQUANTIZE,)), "sadalp")
    farther = Step("requantize", (5.0, 3.0, -128.0, 127.0), REQUANTIZE.operands)
    assert not moves_sums(Epilogue((farther,)), "sdot")  # Not known to be small behind the offset.
    assert not moves_sums(Epilogue((REQUANTIZE, shifted)), "sdot") and not moves_sums(Epilogue(), "sdot")


@pytest.mark.parametrize("count", range(2, 20))
def test_parts_of_a_row_cover_it(count: int) -> None:
    parts = _parts(count)
    assert {first + at for first, some in parts for at in range(some)} == set(range(count))
    assert {some for _, some in parts} <= {2, 4} and sum(some for _, some in parts) <= count + 1
