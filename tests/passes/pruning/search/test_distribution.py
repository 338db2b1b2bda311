"""The distribution over parts: it begins with equal shares, samples stay distributions, and steps are clipped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene.passes.pruning.search.distribution import initial, perturbed, restricted, updated
from reconvene.passes.pruning.search.parts import Part

PARTS = [Part("a", 16, 15), Part("b", 48, 40), Part("held", 64, 0)]
LISTS = st.lists(st.floats(0.001, 1), min_size=2, max_size=9)


def normal(values: list[float]) -> np.ndarray:
    return np.array(values) / sum(values)


def test_it_begins_in_proportion_to_channels_without_parts_that_cannot_be_pruned() -> None:
    assert initial(PARTS).tolist() == [0.25, 0.75, 0.0]
    assert initial([Part("held", 4, 0)]).tolist() == [0.0]


def test_a_part_that_has_no_more_leaves_its_share_to_the_others() -> None:
    parts = [Part("a", 16, 15), Part("b", 1, 0), Part("c", 4, 1)]
    assert restricted(np.array([0.25, 0.5, 0.25]), parts).tolist() == [0.5, 0.0, 0.5]
    assert restricted(np.array([0.0, 1.0, 0.0]), parts).tolist() == [0.8, 0.0, 0.2]


@given(LISTS, st.integers(0, 99), st.floats(0.01, 3))
def test_samples_are_distributions_over_the_same_parts(values: list[float], seed: int, noise: float) -> None:
    around = normal([*values, 0.0])
    found = perturbed(around, noise, 1e-5, np.random.default_rng(seed))
    assert found.sum() == pytest.approx(1)
    assert (found[:-1] > 0).all() and found[-1] == 0


def test_samples_spread_as_the_noise_says() -> None:
    """The standard deviation of N(0, s) U(0, 1) is s / sqrt(3)."""
    generator = np.random.default_rng(0)
    around = np.full(100, 0.01)
    drawn = np.array([perturbed(around, 0.001, 1e-5, generator) for _ in range(400)])
    assert drawn.std(0).mean() == pytest.approx(0.001 / np.sqrt(3), rel=0.05)


@given(LISTS, st.integers(0, 99), st.floats(0.01, 1), st.floats(0.01, 0.9))
def test_a_step_changes_no_probability_by_more_than_the_clip(
    values: list[float], seed: int, rate: float, clip: float
) -> None:
    before = normal([*values, 0.0])
    target = normal([*np.random.default_rng(seed).random(len(values)).tolist(), 0.0])
    after = updated(before, target, rate, clip)
    ratios = after[:-1] / before[:-1]
    # All are multiplied by one number afterwards.
    assert ratios.max() / ratios.min() <= (1 + clip) / (1 - clip) * (1 + 1e-9)
    assert after.sum() == pytest.approx(1) and after[-1] == 0


def test_a_step_by_hand() -> None:
    before, target = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    assert updated(before, target, 0.1, 0.25) == pytest.approx([0.54, 0.46])
    assert updated(before, target, 1.0, 0.2) == pytest.approx([0.6, 0.4])
    assert updated(before, np.array([1.0, 0.0]), 0.0, 0.2).tolist() == [0.5, 0.5]
