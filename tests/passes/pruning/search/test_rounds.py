"""The search: with worths made by hand it finds the allocation that brute force finds, and repeats itself bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from reconvene.frontend.base.errors import InputError
from reconvene.passes.pruning.search.counts import Counts
from reconvene.passes.pruning.search.distribution import initial
from reconvene.passes.pruning.search.parts import Part
from reconvene.passes.pruning.search.replay import Entry, Replay
from reconvene.passes.pruning.search.rounds import search
from reconvene.passes.pruning.search.settings import SearchSettings

PARTS = [Part("a", 8, 7), Part("b", 16, 15), Part("c", 16, 15), Part("d", 32, 31)]
BUDGET = 24
WIDE = SearchSettings(rounds=60, samples=20, noise=0.3, last_noise=0.03, pull=0.5)
"""A search that is to go far in one step. The paper's goes a little way in each of many."""
SENSITIVITIES = [(9.0, 1.0, 4.0, 2.0), (1.0, 8.0, 1.0, 8.0), (0.5, 2.0, 0.2, 3.0), (5.0, 5.0, 5.0, 0.1)]


def worth(sensitivity: Sequence[float], counts: Counts) -> float:
    """A loss that grows as the square of the share that a layer loses, and jumps where it has lost half."""
    shares = [count / part.size for count, part in zip(counts, PARTS, strict=True)]
    return -sum(
        weight * share**2 + (1.0 if share > 0.5 else 0.0) for weight, share in zip(sensitivity, shares, strict=True)
    )


def best(sensitivity: Sequence[float]) -> float:
    """Of all allocations of the budget."""
    some = itertools.product(*(range(part.most + 1) for part in PARTS[:-1]))
    everything = [(*counts, BUDGET - sum(counts)) for counts in some if 0 <= BUDGET - sum(counts) <= PARTS[-1].most]
    return max(worth(sensitivity, counts) for counts in everything)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sensitivity", SENSITIVITIES)
def test_it_finds_what_brute_force_finds(sensitivity: tuple[float, ...], seed: int) -> None:
    def quality(some: Sequence[Counts]) -> list[float]:
        return [worth(sensitivity, counts) for counts in some]

    found = search(PARTS, BUDGET, initial(PARTS), WIDE, quality, np.random.default_rng(seed))
    assert found.chosen.quality == best(sensitivity)
    assert worth(sensitivity, found.chosen.counts) == found.chosen.quality and sum(found.chosen.counts) == BUDGET
    assert found.asked < 60 * 20


def test_many_small_steps_with_the_paper_s_constants_spare_what_is_dear() -> None:
    """Four steps of six units each; equal shares would take 2.7 of a, which is dearest by far."""
    sensitivity, gone, distribution = (40.0, 1.0, 1.0, 1.0), np.zeros(4, int), initial(PARTS)
    for step in range(4):
        parts = [Part(p.name, p.size - int(g), p.size - int(g) - 1) for p, g in zip(PARTS, gone, strict=True)]
        lost = tuple(gone)

        def quality(some: Sequence[Counts], lost: tuple[int, ...] = lost) -> list[float]:
            return [worth(sensitivity, tuple(np.add(lost, counts).tolist())) for counts in some]

        found = search(parts, 6, distribution, SearchSettings(), quality, np.random.default_rng(step))
        gone, distribution = gone + found.chosen.counts, found.distribution
    assert gone.sum() == 24 and gone[0] <= 1
    even = tuple(np.rint(initial(PARTS) * 24).astype(int).tolist())
    assert worth(sensitivity, tuple(gone.tolist())) > worth(sensitivity, even)
    assert distribution[0] < initial(PARTS)[0]


def test_the_same_generator_finds_the_same() -> None:
    def quality(some: Sequence[Counts]) -> list[float]:
        return [worth(SENSITIVITIES[0], counts) for counts in some]

    one, two = (
        search(PARTS, 9, initial(PARTS), SearchSettings(), quality, np.random.default_rng(3), explore=0.5)
        for _ in range(2)
    )
    assert one.chosen.counts == two.chosen.counts and one.explored == two.explored
    assert one.distribution.tolist() == two.distribution.tolist() and one.best == two.best


def test_it_moves_only_towards_what_is_better_than_before() -> None:
    """All are worth the same, so that only the first round's first sample is better than what was."""
    moved = search(
        PARTS, 9, initial(PARTS), SearchSettings(rounds=5), lambda some: [1.0] * len(some), np.random.default_rng(0)
    )
    once = search(
        PARTS, 9, initial(PARTS), SearchSettings(rounds=1), lambda some: [1.0] * len(some), np.random.default_rng(0)
    )
    assert moved.distribution.tolist() == once.distribution.tolist() != initial(PARTS).tolist()
    assert moved.best == (1.0,) * 5


def test_a_chance_of_one_takes_any_of_the_best() -> None:
    def quality(some: Sequence[Counts]) -> list[float]:
        return [worth(SENSITIVITIES[0], counts) for counts in some]

    found = [
        search(PARTS, 9, initial(PARTS), SearchSettings(), quality, np.random.default_rng(seed), explore=1.0)
        for seed in range(8)
    ]
    assert all(one.explored for one in found)
    assert any(one.chosen is not one.replay.entries[0] for one in found)
    assert all(one.chosen in one.replay.entries for one in found)


def test_parts_of_which_none_can_lose_anything_are_refused() -> None:
    held = [Part("a", 4, 0)]
    with pytest.raises(ValueError, match="no part"):
        search(held, 1, initial(held), SearchSettings(), lambda some: [], np.random.default_rng(0))


def test_the_replay_keeps_the_best_and_each_once() -> None:
    def entry(quality: float, *counts: int) -> Entry:
        return Entry(quality, np.zeros(1), counts)

    first = entry(1.0, 3)
    kept = Replay(3).joined([first, entry(0.5, 2), entry(1.0, 3)]).joined([entry(0.7, 4), entry(0.1, 5)])
    assert [(one.quality, one.counts) for one in kept.entries] == [(1.0, (3,)), (0.7, (4,)), (0.5, (2,))]
    assert kept.entries[0] is first


def test_exploration_ends_as_a_cosine_after_its_share_of_the_steps() -> None:
    settings = SearchSettings()
    assert [round(settings.exploring(step, 60), 4) for step in (0, 3, 5, 6, 59)] == [0.4, 0.2, 0.0268, 0.0, 0.0]
    assert SearchSettings(explore_share=0).exploring(0, 10) == 0


def test_noise_falls_by_equal_factors() -> None:
    settings = SearchSettings(rounds=3, noise=0.4, last_noise=0.1)
    assert [settings.noise_in(number) for number in range(3)] == pytest.approx([0.4, 0.2, 0.1])
    assert SearchSettings().noise_in(0) == SearchSettings().noise_in(9) == 0.04
    assert SearchSettings(rounds=1).noise_in(0) == 0.04


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rounds": 0}, "rounds 0"), ({"noise": "0"}, "noise"), ({"limit": 1.5}, "share"), ({"nois": 1}, "has no setting"),
        ({"samples": "many"}, "whole number"), ({"last_noise": "nan"}, "last_noise"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(given: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        SearchSettings().changed(given)
    assert "\n" not in str(caught.value)
    assert SearchSettings().changed({"rounds": "3", "noise": "0.1"}) == SearchSettings(rounds=3, noise=0.1)
