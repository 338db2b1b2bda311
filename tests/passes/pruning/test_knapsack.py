"""Widths by a knapsack: what the solver finds is what brute force finds, on tables and on small networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.pruning.decisions import Widths
from reconvene.passes.pruning.knapsack import Table, packed_for_latency, solve
from reconvene.passes.pruning.latency import LatencyGoal, decide_for_latency, layer_channels
from tests.support.pruning import by_magnitude


def brute_force(values: Sequence[Sequence[float]], tables: Sequence[Table], budget: float) -> float | None:
    """The most value of all choices that fit."""
    fitting = [
        sum(some[choice] for some, choice in zip(values, choices, strict=True))
        for choices in itertools.product(*(range(len(some)) for some in values))
        if sum(float(t.times[tuple(choices[place] for place in t.places)]) for t in tables) <= budget * (1 + 1e-9)
    ]
    return max(fitting, default=None)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 4), st.integers(2, 4), st.integers(0, 10_000), st.floats(0.1, 1.0), st.sampled_from([1e-9, 1.0, 1e7])
)
def test_it_solves_what_brute_force_solves(groups: int, choices: int, seed: int, share: float, unit: float) -> None:
    """Chains of layers with times that may fall where a width grows, in whatever unit."""
    random = np.random.default_rng(seed)
    values = [np.sort(random.integers(0, 50, choices)).astype(float).tolist() for _ in range(groups)]
    tables = [Table((g, g + 1), unit * random.integers(1, 40, (choices, choices))) for g in range(groups - 1)]
    tables += [Table((g,), unit * random.integers(1, 20, choices)) for g in range(groups)]
    budget = share * sum(float(table.times.max()) for table in tables)
    best, found = brute_force(values, tables, budget), solve(values, tables, budget)
    if best is None:
        assert found is None
        return
    assert found is not None
    assert sum(some[choice] for some, choice in zip(values, found, strict=True)) == pytest.approx(best)
    taken = sum(float(table.times[tuple(found[place] for place in table.places)]) for table in tables)
    assert taken <= budget * (1 + 1e-6)


class Residual(nn.Module):
    """Two groups of channels: one that two layers add into, and one inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.inner = nn.Conv2d(6, 8, 3, padding=1, bias=False)
        self.outer = nn.Conv2d(8, 6, 1, bias=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def view() -> DependencyView:
    torch.manual_seed(1)
    return dependency_view(canonicalize(capture(Residual(), (torch.randn(1, 3, 8, 8),))))


def stairs(name: str, channels_in: int, channels_out: int) -> float:
    """Vectors of four channels out for every channel in."""
    return float(channels_in * -(-channels_out // 4))


def kept_importance(view: DependencyView, widths: dict[str, int]) -> float:
    """The largest scores of so many channels of each group."""
    scores = by_magnitude(view).scores
    return sum(float(np.sort(score)[::-1][: widths[group.name]].sum()) for group, score in scores.items())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95])
def test_no_widths_keep_more_importance_in_the_time(view: DependencyView, share: float) -> None:
    found = packed_for_latency(view, by_magnitude(view), LatencyGoal(share, stairs))
    sizes = layer_channels(view, found.decisions)
    widths = {"stem.weight": sizes["stem.weight"][1], "inner.weight": sizes["inner.weight"][1]}

    def time(stem: int, inner: int) -> float:
        return (
            stairs("", 3, stem) + stairs("", stem, inner) + stairs("", inner, stem) + stairs("", stem, 2)
        )  # fmt: skip

    fitting = [
        kept_importance(view, {"stem.weight": stem, "inner.weight": inner})
        for stem, inner in itertools.product(range(1, 7), range(1, 9))
        if time(stem, inner) <= share * time(6, 8)
    ]
    assert kept_importance(view, widths) == pytest.approx(max(fitting))
    assert found.share == pytest.approx(time(*widths.values()) / time(6, 8)) and found.share <= share


def test_it_keeps_no_less_than_one_share_for_all(view: DependencyView) -> None:
    scored, goal = by_magnitude(view), LatencyGoal(0.5, stairs)
    by_share, packed = decide_for_latency(view, scored, goal), packed_for_latency(view, scored, goal)

    def kept(decisions: Sequence[object]) -> float:
        return sum(float(d.score[~d.drop].sum()) for d in decisions if d.score is not None)  # type: ignore[attr-defined]

    assert kept(packed.decisions) >= kept(by_share.decisions) - 1e-9
    assert packed.sparsity == pytest.approx(sum(int(d.drop.sum()) for d in packed.decisions) / 14)


def test_multiples_and_floors_hold(view: DependencyView) -> None:
    found = packed_for_latency(view, by_magnitude(view), LatencyGoal(0.6, stairs), Widths(multiple=2, minimum=4))
    for decision in found.decisions:
        if decision.score is not None:
            kept = int((~decision.drop).sum())
            assert kept % 2 == 0 and kept >= 4


def test_layers_that_read_several_groups_are_within_the_budget(view: DependencyView) -> None:
    """Their time is estimated in the search, and counted afterwards."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 10, 1)
            self.c, self.head = nn.Conv2d(16, 8, 1), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.c(torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1)))
            return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    joined = dependency_view(canonicalize(capture(Joined(), (torch.randn(1, 3, 8, 8),))))

    def products(name: str, channels_in: int, channels_out: int) -> float:
        return float(channels_in * channels_out)

    for share in (0.3, 0.6):
        found = packed_for_latency(joined, by_magnitude(joined), LatencyGoal(share, products))
        assert found.share <= share
        dense = sum(products("", *sizes) for sizes in layer_channels(joined, ()).values())
        own = sum(products("", *sizes) for sizes in layer_channels(joined, found.decisions).values())
        assert found.share == pytest.approx(own / dense)


def test_what_cannot_be_reached_is_one_line(view: DependencyView) -> None:
    scored = by_magnitude(view)
    with pytest.raises(InputError, match=r"cannot be reached: with every layer at its least it is 0\.\d\d"):
        packed_for_latency(view, scored, LatencyGoal(0.001, stairs))
    with pytest.raises(InputError, match="no layer of this model has a known time"):
        packed_for_latency(view, scored, LatencyGoal(0.5, lambda *_: 0.0))
