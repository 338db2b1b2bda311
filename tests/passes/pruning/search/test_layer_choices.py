"""One choice for every layer within a time: with errors made by hand the search finds what brute force finds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.search.counts import Counts
from reconvene.passes.pruning.search.layer_choices import (
    LayerChoice,
    best_sum,
    drawn,
    search_choices,
    time_of,
    undominated,
)
from reconvene.passes.pruning.search.rounds import Found
from reconvene.passes.pruning.search.settings import SearchSettings

WIDE = SearchSettings(rounds=30, samples=20, noise=0.3, last_noise=0.1, pull=0.3)

Case = tuple[list[list[LayerChoice]], Callable[[Counts], float], float]


def case(seed: int) -> Case:
    """Four layers of five choices, whose errors make each other larger or smaller in pairs."""
    generator = np.random.default_rng(seed)
    layers = []
    for _ in range(4):
        times = np.sort(generator.uniform(0.1, 1, 5))[::-1] * generator.uniform(1, 5)
        errors = [0.0, *np.sort(generator.exponential(1, 4)) * generator.uniform(0.1, 1)]
        layers.append([LayerChoice(float(time), float(error)) for time, error in zip(times, errors, strict=True)])
    pairs = np.triu(generator.uniform(-0.8, 0.8, (4, 4)), 1)

    def quality(chosen: Counts) -> float:
        errors = np.array([some[place].error for some, place in zip(layers, chosen, strict=True)])
        return 1 - float(errors.sum() + errors @ pairs @ errors)

    dense, least = (time_of(layers, (place,) * 4) for place in (0, 4))
    return layers, quality, least + (dense - least) * (0.15, 0.3, 0.5, 0.8)[seed % 4]


def found(one: Case, how: SearchSettings, seed: int = 0) -> Found:
    layers, quality, budget = one
    return search_choices(layers, budget, how, lambda some: [*map(quality, some)], np.random.default_rng(seed))


def every(layers: Sequence[Sequence[LayerChoice]], budget: float) -> list[Counts]:
    """All choices within a budget."""
    some = itertools.product(*(range(len(choices)) for choices in layers))
    return [chosen for chosen in some if time_of(layers, chosen) <= budget]


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_what_brute_force_finds(seed: int) -> None:
    layers, quality, budget = case(seed)
    outcome = found((layers, quality, budget), WIDE)
    assert outcome.chosen.quality == pytest.approx(max(map(quality, every(layers, budget))))
    assert outcome.chosen.quality == quality(outcome.chosen.counts)
    assert time_of(layers, outcome.chosen.counts) <= budget
    assert outcome.asked <= len(every(layers, budget)) < 625


def test_in_some_of_these_cases_the_least_sum_is_not_the_best() -> None:
    """So that the search has something to find."""
    begun = [found(case(seed), SearchSettings(rounds=1, samples=1)).best[0] for seed in range(12)]
    best = [max(map(quality, every(layers, budget))) for layers, quality, budget in map(case, range(12))]
    assert sum(one < other - 1e-9 for one, other in zip(begun, best, strict=True)) >= 2


def test_it_begins_at_the_least_sum_and_never_ends_below() -> None:
    layers, quality, budget = case(3)
    asked: list[Counts] = []

    def qualities(some: Sequence[Counts]) -> list[float]:
        asked.extend(some)
        return [*map(quality, some)]

    outcome = search_choices(layers, budget, SearchSettings(rounds=2), qualities, np.random.default_rng(0))
    sums = {
        chosen: sum(some[place].error for some, place in zip(layers, chosen, strict=True))
        for chosen in every(layers, budget)
    }
    assert sums[asked[0]] == min(sums.values())
    assert outcome.chosen.quality >= quality(asked[0]) == outcome.best[0]
    assert len(set(asked)) == len(asked) == outcome.asked and set(asked) <= set(sums)


def test_the_same_seed_finds_the_same() -> None:
    one, two = (found(case(1), SearchSettings(), 5) for _ in range(2))
    assert one.best == two.best and one.distribution.tolist() == two.distribution.tolist()
    assert [entry.counts for entry in one.replay.entries] == [entry.counts for entry in two.replay.entries]


numbers = st.floats(0, 10)
layers_of_choices = st.lists(
    st.lists(st.builds(LayerChoice, st.floats(0.01, 10), numbers), min_size=1, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None)
@given(layers_of_choices, st.floats(0, 1))
def test_the_best_sum_is_that_of_brute_force_and_within_the_budget(
    layers: list[list[LayerChoice]], part: float
) -> None:
    fastest = sum(min(choice.time for choice in some) for some in layers)
    budget = fastest * 0.9 + part * sum(max(choice.time for choice in some) for some in layers)
    values = [[-choice.error for choice in some] for some in layers]

    def worth(chosen: Counts) -> float:
        return sum(some[place] for some, place in zip(values, chosen, strict=True))

    chosen, possible = best_sum(values, layers, budget), every(layers, budget)
    if chosen is None:
        assert not possible
        return
    assert chosen in possible
    # Where the budget is nearly a sum of times, the solver may take that sum to be above it.
    clear = [one for one in possible if time_of(layers, one) <= budget * (1 - 1e-4)]
    assert worth(chosen) >= max(map(worth, clear), default=-1e9) - 1e-4


@given(layers_of_choices, st.floats(0, 1), st.integers(0, 99))
def test_what_is_drawn_is_within_the_budget_and_nothing_likelier_fits(
    layers: list[list[LayerChoice]], part: float, seed: int
) -> None:
    fastest = sum(min(choice.time for choice in some) for some in layers)
    budget = fastest * 1.001 + part * sum(max(choice.time for choice in some) for some in layers)
    rows = np.zeros((len(layers), max(map(len, layers))))
    for row, some in zip(rows, layers, strict=True):
        row[: len(some)] = 1 / len(some)
    chosen = drawn(rows, layers, budget, np.random.default_rng(seed))
    assert time_of(layers, chosen) <= budget
    assert all(place < len(some) for place, some in zip(chosen, layers, strict=True))


def test_draws_are_as_likely_as_the_distribution_says_where_time_does_not_matter() -> None:
    layers = [[LayerChoice(1.0, 0.0), LayerChoice(2.0, 1.0), LayerChoice(3.0, 2.0)], [LayerChoice(1.0, 0.0)]]
    rows, generator = np.array([[0.6, 0.3, 0.1], [1.0, 0.0, 0.0]]), np.random.default_rng(0)
    places = np.array([drawn(rows, layers, 9.0, generator) for _ in range(2000)])
    assert np.bincount(places[:, 0]) / 2000 == pytest.approx([0.6, 0.3, 0.1], abs=0.04)
    assert (places[:, 1] == 0).all()


def test_dominated_choices_by_hand() -> None:
    pairs = [(10.0, 0.0), (8.0, 1.0), (9.0, 2.0), (5.0, 2.0), (5.0, 2.0), (1.0, 1.0), (0.5, 3.0), (0.5, 4.0)]
    assert undominated([LayerChoice(*pair) for pair in pairs]) == (0, 5, 6)


def test_no_choices_within_the_budget() -> None:
    with pytest.raises(InputError, match="no choices of structures are within the budget"):
        search_choices([[LayerChoice(2.0, 0.0)]], 1.0, SearchSettings(), lambda some: [], np.random.default_rng(0))
