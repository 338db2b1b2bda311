"""Widths chosen by time: small networks with times given by hand, so that the answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.groups import ChannelGroup
from reconvene.passes.pruning.decisions import Decision, Widths, allot, masks_of
from reconvene.passes.pruning.latency import LatencyGoal, _wider, decide_for_latency, layer_channels

from ...support.pruning import by_magnitude, prune


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 16, 10)
    )


X = (torch.randn(1, 3, 8, 8),)


@pytest.fixture
def view() -> DependencyView:
    return dependency_view(canonicalize(capture(network(), X)))


def products(name: str, channels_in: int, channels_out: int) -> float:
    return float(channels_in * channels_out)


def steps_of_eight(name: str, channels_in: int, channels_out: int) -> float:
    """The first two layers, in vectors of eight."""
    return float(math.ceil(channels_out / 8)) if name in ("0.weight", "2.weight") else 0.0


def kept(view: DependencyView, goal: LatencyGoal, **options: int) -> dict[str, tuple[int, int]]:
    found = decide_for_latency(view, by_magnitude(view), goal, Widths(**options))
    return layer_channels(view, found.decisions)


def test_channels_after_a_decision(view: DependencyView) -> None:
    """The linear layer loses the sixteen pixels of every channel."""
    decisions = allot(view, by_magnitude(view), 0.5)
    assert layer_channels(view, decisions) == {"0.weight": (3, 16), "2.weight": (16, 32), "5.weight": (512, 10)}
    assert layer_channels(view, ())["5.weight"] == (1024, 10)


def test_a_width_never_takes_as_long_as_a_larger_one(view: DependencyView) -> None:
    """12 vectors dense; 6 are half of that: 16 of 32 and 32 of 64 channels, though fewer would be in the same vectors."""
    found = decide_for_latency(view, by_magnitude(view), LatencyGoal(0.5, steps_of_eight))
    assert found.share == 0.5
    assert layer_channels(view, found.decisions) == {"0.weight": (3, 16), "2.weight": (16, 32), "5.weight": (512, 10)}
    nearly = decide_for_latency(view, by_magnitude(view), LatencyGoal(0.49, steps_of_eight))
    widths = [channels[1] for channels in layer_channels(view, nearly.decisions).values()][:2]
    assert nearly.share < 0.49 and all(width % 8 == 0 for width in widths)


def test_time_and_not_channels_is_halved(view: DependencyView) -> None:
    """By products, half the time needs fewer than half of the channels to go."""
    dense = 3 * 32 + 32 * 64 + 1024 * 10
    channels = kept(view, LatencyGoal(0.5, products))
    assert sum(a * b for a, b in channels.values()) <= dense / 2
    assert channels["2.weight"][1] >= 30


def test_all_of_the_time_keeps_everything(view: DependencyView) -> None:
    assert kept(view, LatencyGoal(1.0, products)) == layer_channels(view, ())


def test_multiples_and_floors_hold(view: DependencyView) -> None:
    channels = kept(view, LatencyGoal(0.4, products), multiple=12, minimum=20)
    assert channels["0.weight"][1] in (24, 32) and channels["2.weight"][1] in (24, 36, 48, 60, 64)


def test_what_cannot_be_reached_is_refused(view: DependencyView) -> None:
    scored = by_magnitude(view)
    with pytest.raises(InputError, match=r"latency 0.01 cannot be reached: .* it is 0.17"):
        decide_for_latency(view, scored, LatencyGoal(0.01, steps_of_eight))
    for share in (0.0, 1.5):
        with pytest.raises(InputError, match="is outside"):
            decide_for_latency(view, scored, LatencyGoal(share, products))
    with pytest.raises(InputError, match="no layer of this model has a known time"):
        decide_for_latency(view, scored, LatencyGoal(0.5, lambda *_: 0.0))


def test_pruning_with_a_goal_is_checked_and_recorded() -> None:
    module = capture(network(), X)
    found = prune(module, X, latency=LatencyGoal(0.5, steps_of_eight))
    assert found.plan.origin["latency"] == 0.5 and found.plan.origin["modelled_latency"] == 0.5
    assert 0 < found.plan.origin["sparsity"] < 1
    assert [layer.channels_after for layer in found.layers] == [16, 32, 10]


@pytest.mark.parametrize(
    ("size", "blocks", "kept", "multiple", "wider"),
    [(10, 1, 7, 1, [8, 9, 10]), (10, 1, 4, 4, [8, 12]), (8, 2, 4, 1, [6, 8]), (8, 1, 8, 1, []), (12, 4, 4, 2, [8, 12])],
)
def test_wider_groups_are_tried_by_the_step_up_to_all_channels(
    view: DependencyView, size: int, blocks: int, kept: int, multiple: int, wider: list[int]
) -> None:
    assert [*_wider(replace(view.groups[0], size=size, blocks=blocks), kept, multiple)] == wider


@pytest.mark.parametrize("groups", [1, 2, 4, 16])
def test_sizes_of_grouped_convolutions_are_those_that_are_left(groups: int) -> None:
    """A group's share of what is read is an axis of the weight, and no axis for all that is read."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, groups=groups), nn.ReLU(), nn.Conv2d(32, 4, 1)
    ).eval()
    x = (torch.randn(1, 3, 6, 6),)
    view = dependency_view(canonicalize(capture(model, x)))
    decisions = [half_of(group) for group in view.groups]
    small = compact(capture(model, x), x, masks_of(view, decisions)).module
    left = {name: value.shape[1::-1] for name, value in small.named_parameters() if value.dim() > 1}
    assert {name: torch.Size(sizes) for name, sizes in layer_channels(view, decisions).items()} == left


def half_of(group: ChannelGroup) -> Decision:
    """The first half of each of its blocks goes, as far as it can lose any."""
    drop = np.zeros(group.size, bool)
    if group.prunable:
        drop.reshape(group.blocks, -1)[:, : group.size // group.blocks // 2] = True
    return Decision(group, int(drop.sum()), drop, ())
