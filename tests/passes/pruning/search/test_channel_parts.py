"""Channels as parts: what they cost, what goes of them, and what that saves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.pruning.decisions import Widths, allot, masks_of
from reconvene.passes.pruning.search.channel_parts import ChannelParts, layer_costs, ranked
from reconvene.passes.pruning.search.counts import counts
from reconvene.passes.pruning.search.distribution import initial
from reconvene.passes.pruning.search.parts import total
from tests.support.pruning import by_magnitude

X = (torch.randn(1, 3, 8, 8),)


class Network(nn.Module):
    """A stream that two layers add into, with a depthwise layer, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.narrow(torch.relu(self.depthwise(torch.relu(self.wide(x)))))
        return self.head(torch.relu(self.grouped(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def view() -> DependencyView:
    torch.manual_seed(0)
    return dependency_view(canonicalize(capture(Network(), X)))


def test_a_unit_is_what_can_go_alone_and_costs_its_filters(view: DependencyView) -> None:
    parts = {part.name: part for part in ChannelParts(view, by_magnitude(view)).parts()}
    assert {name: (part.size, part.most, part.price) for name, part in parts.items()} == {
        "stem.weight": (
            4,
            3,
            4,
        ),  # Two layers make it; one channel in each half of the grouped layer's input goes with another.
        "wide.weight": (16, 15, 1),  # The depthwise filters follow.
        "grouped.weight": (6, 5, 2),
    }
    assert total(list(parts.values())) == 8 + 8 + 16 + 12


def test_a_floor_is_kept(view: DependencyView) -> None:
    parts = ChannelParts(view, by_magnitude(view), Widths(minimum=3, least_share=0.5)).parts()
    assert [part.most for part in parts] == [2, 8, 3]


def test_what_is_allotted_goes_the_lowest_first_and_exactly(view: DependencyView) -> None:
    parts = ChannelParts(view, by_magnitude(view))
    decisions = parts.decisions((1, 5, 2))
    gone = {decision.group.name: decision for decision in decisions if decision.drop.any()}
    assert {name: int(decision.drop.sum()) for name, decision in gone.items()} == {
        "stem.weight": 2, "wide.weight": 5, "grouped.weight": 4,
    }  # fmt: skip
    wide = gone["wide.weight"]
    assert wide.score is not None and wide.score[wide.drop].max() <= wide.score[~wide.drop].min()
    small = compact(view.module, X, masks_of(view, decisions))
    assert small.module.get_parameter("wide.weight").shape == (11, 6, 1, 1)
    assert small.module.get_parameter("grouped.weight").shape == (8, 3, 3, 3)
    assert small.module.get_parameter("depthwise.weight").shape == (11, 1, 3, 3)


def test_costs_are_those_of_the_smaller_network(view: DependencyView) -> None:
    parts = ChannelParts(view, by_magnitude(view))
    dense, decisions = layer_costs(view, ()), parts.decisions((0, 5, 2))
    small = compact(view.module, X, masks_of(view, decisions))
    own = layer_costs(view, decisions)
    assert (dense.macs, own.macs) == (small.before.macs, small.after.macs)
    weights = [value.numel() for name, value in small.module.named_parameters() if value.dim() > 1]
    assert own.parameters == sum(weights) and dense.saved(dense).macs == 0


def test_equal_shares_are_what_a_score_takes_of_every_layer(view: DependencyView) -> None:
    scored = by_magnitude(view)
    parts = ChannelParts(view, scored)
    described = parts.parts()
    even = parts.decisions(counts(initial(described), described, total(described) // 2))
    for one, other in zip(even, allot(view, scored, 0.5), strict=True):
        assert (one.drop == other.drop).all()


def test_one_ranking_takes_the_lowest_of_all_until_the_budget_is_used_up(view: DependencyView) -> None:
    parts = ChannelParts(view, by_magnitude(view))
    found = ranked(parts, 10)
    described = parts.parts()
    spent = sum(count * part.price for count, part in zip(found, described, strict=True))
    assert 10 - min(part.price for part in described) < spent <= 10
    scores = [(group.blocks, parts.scored.scores[group]) for group in parts.groups]
    means = [np.sort(score.reshape(blocks, -1), 1).mean(0) / score.mean() for blocks, score in scores]
    highest = max(some[count - 1] for some, count in zip(means, found, strict=True) if count)
    cheap = [some[count] for some, count, part in zip(means, found, described, strict=True) if part.price == 1]
    assert all(unit >= highest for unit in cheap)
    everything = ranked(parts, 1000)
    assert everything == tuple(part.most for part in described)
