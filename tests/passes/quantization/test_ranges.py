"""Ranges by hand, and what holds of all of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.passes.quantization.ranges import RANGES, Histogram, MinMax, Percentile, affine, symmetric


def test_scale_and_zero_point_by_hand() -> None:
    assert affine(0.0, 2.55) == (pytest.approx(0.01), -128)
    assert affine(-1.28, 1.27) == (pytest.approx(0.01), 0)
    assert affine(-2.55, 0.0) == (pytest.approx(0.01), 127)
    assert affine(-1.0, 4.1) == (pytest.approx(0.02), -78)
    assert affine(1.0, 2.55) == (pytest.approx(0.01), -128)  # Zero is one of the values, whatever was seen.
    assert affine(0.0, 0.0) == (1.0, 0)


numbers = st.floats(-1e30, 1e30, allow_nan=False)


@given(numbers, numbers)
def test_zero_is_exact_and_the_ends_are_a_step_away_at_most(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    scale, zero = affine(low, high)
    assert scale > 0 and 1 / scale < float("inf") and -128 <= zero <= 127
    for end in (min(low, 0.0), max(high, 0.0)):
        rounded = max(-128, min(127, round(end / scale) + zero))
        assert abs((rounded - zero) * scale - end) <= 1.001 * scale


def test_weights_have_a_scale_a_channel() -> None:
    weight = torch.tensor([[1.27, -0.5], [-2.54, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(symmetric(weight, 0), torch.tensor([0.01, 0.02, 1.0]))
    torch.testing.assert_close(symmetric(weight, 1), torch.tensor([0.02, 1 / 127]))
    floor = torch.tensor([0.5, 0.0, 0.25])
    torch.testing.assert_close(symmetric(weight, 0, floor), torch.tensor([0.5, 0.02, 0.25]))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(-100, 100).map(lambda power: 10 ** (power / 5)))
def test_weights_are_in_127_steps_of_their_scale(seed: int, size: float) -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * size
    scale = symmetric(weight, 0).view(-1, 1, 1, 1)
    steps = (weight / scale).round()
    assert steps.abs().max() == 127 and ((steps * scale - weight).abs() <= 0.501 * scale).all()


@pytest.mark.parametrize("kind", RANGES.values())
def test_what_was_never_looked_at_or_only_zeros_is_a_range_of_zero(kind: type[MinMax]) -> None:
    found = kind()
    assert found.ends() == (0.0, 0.0)
    found.look(torch.zeros(3, 4))
    found.look(torch.zeros(0))
    assert found.ends() == (0.0, 0.0) and found.finite


@pytest.mark.parametrize("kind", RANGES.values())
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_nan_and_infinity_are_noticed_for_good(kind: type[MinMax], value: float) -> None:
    found = kind()
    found.look(torch.tensor([1.0, value]))
    found.look(torch.tensor([1.0, 2.0]))
    assert not found.finite


@pytest.mark.parametrize("kind", RANGES.values())
@pytest.mark.parametrize("size", [1e-44, 1e-20, 1e30])
def test_numbers_of_any_size_have_a_scale(kind: type[MinMax], size: float) -> None:
    found = kind()
    found.look(torch.linspace(-1, 1, 1001) * size)
    scale, zero = affine(*found.ends())
    assert scale == pytest.approx(max(size / 127.5, 2.0**-100), rel=0.1, abs=0)
    assert -128 <= zero <= (1 if size > 2.0**-92 else 127)


def test_the_smallest_and_largest_number() -> None:
    found = MinMax()
    found.look(torch.tensor([-1.0, 3.0]))
    found.look(torch.tensor([-0.5, 7.0]))
    assert found.ends() == (-1.0, 7.0)


def test_batches_of_any_size_give_one_histogram() -> None:
    """Widening joins bins, and loses none of the counts."""
    values = torch.cat([torch.linspace(-0.3, 0.7, 1000), torch.linspace(-40, 90, 1000)])
    whole, parts = Histogram(), Histogram()
    whole.look(values)
    for piece in values.split(100):
        parts.look(piece)
    assert parts.ends() == pytest.approx(whole.ends(), rel=1e-3)
    assert (parts._counts == whole._counts).all()


@pytest.mark.parametrize("kind", [Histogram, Percentile])
def test_a_rare_large_number_is_cut_off(kind: type[MinMax]) -> None:
    values = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    values[0] = 60.0
    found = kind()
    found.look(values)
    low, high = found.ends()
    assert -6 < low < -2.5 and 2.5 < high < 40


@pytest.mark.parametrize("shape", ["normal", "rectified", "heavy", "uniform"])
def test_a_histogram_has_no_more_error_than_the_whole_range(shape: str) -> None:
    drawn = torch.randn(50_000, generator=torch.Generator().manual_seed(1))
    values = {
        "normal": drawn, "rectified": drawn.relu(), "heavy": drawn**5, "uniform": torch.linspace(-1, 3, 50_000)
    }[shape]  # fmt: skip
    errors = {}
    for name, kind in RANGES.items():
        found = kind()
        found.look(values)
        scale, zero = affine(*found.ends())
        rounded = ((values / scale).round() + zero).clamp(-128, 127).sub(zero) * scale
        errors[name] = float((rounded - values).square().sum())
    assert errors["histogram"] <= 1.001 * errors["min-max"]
    if shape == "heavy":
        assert errors["histogram"] < 0.98 * errors["min-max"]
