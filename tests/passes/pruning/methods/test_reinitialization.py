"""New initial weights: of which layers, from which distribution, and that nothing else changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.networks.initial_weights import initialize
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import Compaction
from reconvene.passes.pruning.methods.reinitialization import affected_layers, reinitialize

IMAGE = (torch.randn(1, 3, 8, 8),)


def pruned() -> tuple[torch.fx.GraphModule, Compaction]:
    """Four convolutions, of which the second ("3") lost half of its channels; so "4" and "6" are touched."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    model.apply(initialize)
    with torch.no_grad():
        model[4].running_mean.add_(3)
    graph = capture(model, IMAGE)
    keep = torch.arange(64) < 32
    return graph, compact(graph, IMAGE, {name: keep for name in ("3.weight", "3.bias", "4.weight", "4.bias")})


def test_affected_layers_are_those_whose_shapes_changed() -> None:
    graph, found = pruned()
    assert affected_layers(found.module, graph) == ("3", "4", "6")


def test_only_the_chosen_layers_change() -> None:
    for which, expected in (
        ("affected", {"3", "4", "6"}),
        ("all", {"0", "1", "3", "4", "6", "7", "9"}),
        ("none", set()),
    ):
        graph, found = pruned()
        before = {name: value.clone() for name, value in found.module.state_dict().items()}
        original = {name: value.clone() for name, value in graph.state_dict().items()}
        assert set(reinitialize(found.module, graph, which)) == expected
        changed = {
            name.split(".")[0]
            for name, value in found.module.state_dict().items()
            if not torch.equal(value, before[name])
        }
        assert changed == expected
        assert all(torch.equal(value, original[name]) for name, value in graph.state_dict().items())


def test_own_weights_are_a_selection_scaled_to_the_new_fan_in() -> None:
    graph, found = pruned()
    reinitialize(found.module, graph)
    old = graph.get_parameter("6.weight").detach() * math.sqrt(2)
    new = found.module.get_parameter("6.weight").detach()
    assert new.shape == (32, 32, 3, 3)
    assert torch.isin(new, old).all() and new.unique().numel() == new.numel()
    assert new.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)
    same_fan = found.module.get_parameter("3.weight")
    assert torch.isin(same_fan, graph.get_parameter("3.weight")).all()
    assert not found.module.get_parameter("4.bias").any()
    assert torch.isin(found.module.get_parameter("4.weight"), graph.get_parameter("4.weight")).all()
    assert not found.module.get_buffer("4.running_mean").any()


@pytest.mark.parametrize(("initializer", "gain"), [("open-lth", 2.0), ("pytorch", 1 / 3)])
def test_named_initialisers_have_their_variance(initializer: str, gain: float) -> None:
    graph, found = pruned()
    reinitialize(found.module, graph, "all", initializer)
    weight = found.module.get_parameter("6.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(gain / (32 * 9)), rel=0.05)
    assert found.module.get_parameter("6.bias").abs().max() <= 1 / math.sqrt(32 * 9)
    scale = found.module.get_parameter("4.weight")
    assert (scale == 1).all() if initializer == "pytorch" else 0 <= scale.min() < scale.max() <= 1
    assert not found.module.get_parameter("4.bias").any()


def test_new_weights_follow_the_seed() -> None:
    weights = []
    for seed in (1, 1, 2):
        graph, found = pruned()
        reinitialize(found.module, graph, seed=seed)
        weights.append(found.module.get_parameter("3.weight").clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_unknown_choices_are_refused_before_anything_changes() -> None:
    graph, found = pruned()
    before = found.module.get_parameter("3.weight").clone()
    for options in ({"which": "some"}, {"initializer": "lucky"}):
        with pytest.raises(InputError, match="choose one of"):
            reinitialize(found.module, graph, **options)
    assert torch.equal(before, found.module.get_parameter("3.weight"))
