"""Deciding what to zero: shares, rounding, floors, patterns, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture

from ...support.models import assert_same_outputs, masked_copy, randomise, widths
from ...support.pruning import ONE_SHOT, prune

IMAGE = (torch.randn(2, 3, 8, 8),)


def net(width: int = 16) -> nn.Sequential:
    """Convolutions of 16 and 12 channels, and a classifier."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def refusal(model: nn.Module, inputs: Any = IMAGE, **options: Any) -> str:
    """The one line that pruning fails with."""
    with pytest.raises(InputError) as caught:
        prune(capture(model, inputs), inputs, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", ONE_SHOT)
def test_every_method_takes_its_share_exactly(method: str) -> None:
    model = randomise(net()).double()
    example = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    batches = [(example, torch.tensor([0, 1]))]
    result = prune(capture(model, example), example, method, 0.5, batches=batches)
    assert widths(result) == {"0": 8, "3": 6, "7": 5}
    unseen = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert_same_outputs(masked_copy(model, result.plan.masks)(unseen), result.module(unseen))


def test_magnitude_drops_the_smallest_filters() -> None:
    model = randomise(net())
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(1, 17).reshape(16, 1, 1, 1).expand(16, 3, 3, 3) * 0.1)
    result = prune(capture(model, IMAGE), IMAGE, "magnitude", 0.25)
    assert result.plan.kept["0.weight"][0].tolist() == list(range(4, 16))


def test_random_scores_follow_the_seed() -> None:
    module = capture(randomise(net()), IMAGE)
    kept = [prune(module, IMAGE, "random", 0.5, seed=seed).plan.kept["0.weight"][0].tolist() for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]


def test_global_scope_takes_more_where_scores_are_even() -> None:
    model = randomise(net())
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(16, 3, 3, 3))
        model[0].weight[:12] *= 1e-3
    result = prune(capture(model, IMAGE), IMAGE, "magnitude", 0.4, scope="global")
    assert widths(result)["0"] <= 5
    assert widths(result)["3"] >= 10


def test_survivors_are_rounded_up_to_a_multiple() -> None:
    result = prune(capture(randomise(net()), IMAGE), IMAGE, "magnitude", 0.6, multiple=4)
    assert widths(result) == {"0": 8, "3": 8, "7": 5}
    outcome = next(group for group in result.groups if group.name == "0.weight")
    assert (outcome.asked, outcome.got) == (10, 8)
    assert any("multiple of 4" in reason for reason in outcome.reasons)


def test_a_floor_is_kept() -> None:
    result = prune(capture(randomise(net()), IMAGE), IMAGE, "magnitude", 0.9, minimum=7)
    assert widths(result)["0"] == widths(result)["3"] == 7


def test_at_least_one_channel_stays() -> None:
    assert widths(prune(capture(randomise(net()), IMAGE), IMAGE, "magnitude", 0.99))["3"] == 1


def test_layers_that_a_pattern_names_are_left_alone() -> None:
    result = prune(capture(randomise(net()), IMAGE), IMAGE, "magnitude", 0.5, ignore=("3*",))
    assert widths(result) == {"0": 8, "3": 12, "7": 5}
    outcome = next(group for group in result.groups if group.name == "3.weight")
    assert outcome.got == 0


def test_blocks_of_a_grouped_convolution_lose_equally_many() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 3, groups=3), nn.Conv2d(12, 2, 1))
    result = prune(capture(randomise(model), IMAGE), IMAGE, "magnitude", 0.4)
    assert widths(result)["1"] % 3 == 0
    assert widths(result)["1"] < 12


def test_parts_of_one_layer_that_go_separate_ways_are_scored_by_themselves() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Conv2d(3, 16, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(12, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.first(x).relu().split([4, 12], 1)
            return self.left(left) + self.right(right)

    model = randomise(Parts())
    with torch.no_grad():
        strength = torch.tensor([9.0, 1, 9, 1, *[7, 2] * 6])
        model.get_parameter("first.weight").copy_(strength.reshape(16, 1, 1, 1).expand(16, 3, 1, 1))
    for scope in ("layer", "global"):
        result = prune(capture(model, IMAGE), IMAGE, "magnitude", 0.5, scope=scope)
        assert result.plan.kept["first.weight"][0].tolist() == list(range(0, 16, 2))
        parts = {
            group.name: (group.asked, group.got) for group in result.groups if group.name.startswith("first.weight")
        }
        assert parts == {"first.weight[0:4]": (2, 2), "first.weight[4:16]": (6, 6)}


def test_nothing_asked_nothing_done() -> None:
    result = prune(capture(randomise(net()), IMAGE), IMAGE, "magnitude", 0.0)
    assert result.after == result.before


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_a_share_outside_zero_to_one_is_refused(sparsity: float) -> None:
    assert "outside 0..1" in refusal(net(), sparsity=sparsity)


def test_unknown_choices_are_named_with_the_known_ones() -> None:
    assert "choose one of magnitude" in refusal(net(), method="wisdom")
    assert "choose layer or global" in refusal(net(), scope="galaxy")


@pytest.mark.parametrize("option", ["multiple", "minimum"])
def test_counts_below_one_are_refused(option: str) -> None:
    assert "at least 1" in refusal(net(), **{option: 0})


def test_a_pattern_that_matches_nothing_is_named() -> None:
    message = refusal(net(), ignore=("features*",))
    assert "'features*'" in message
    assert "0.weight" in message


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_model_where_all_is_left_alone_stays_whole(scope: str) -> None:
    found = prune(capture(net(), IMAGE), IMAGE, sparsity=0.5, ignore=("*",), scope=scope)
    assert found.after == found.before
    assert all("left alone by '*'" in decision for group in found.groups for decision in group.reasons)


def test_a_model_without_layers_is_refused() -> None:
    assert "no convolution" in refusal(nn.Sequential(nn.ReLU(), nn.Softmax(1)))


def test_a_model_with_one_layer_says_what_holds_it() -> None:
    message = refusal(nn.Sequential(nn.Conv2d(3, 8, 3)))
    assert "no channel of this model can be removed" in message
    assert "output" in message


def test_a_barrier_is_the_reason_given() -> None:
    class Transformed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.fft.fft(self.first(x), dim=1).real)

    assert "fft" in refusal(Transformed())


def test_weights_that_are_not_finite_are_refused_before_anything_is_scored() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0] = float("nan")
    assert "'0.weight' holds 27 entries" in refusal(model)


def test_methods_that_need_data_say_so() -> None:
    assert "give batches" in refusal(net(), method="snip")
