"""Times of layers at any width, and pruning that aims at them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reconvene
from reconvene.backends.choosing.layer_times import LayerTimes, layer_times
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.dependency import dependency_view
from reconvene.passes.pruning.decisions import rounded
from reconvene.passes.pruning.latency import LatencyGoal, decide_for_latency, layer_channels
from tests.support.pruning import by_magnitude

X = (torch.randn(1, 3, 32, 32),)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 48, 3, 1, 1, groups=48), nn.Conv2d(48, 64, 3, 2, 1), nn.ReLU(),
        nn.Conv2d(64, 96, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10),
    ).eval()  # fmt: skip


@pytest.fixture
def times() -> LayerTimes:
    return layer_times(canonicalize(capture(network(), X)), find_target("rpi4"))


def test_layers_are_found_with_their_shapes(times: LayerTimes) -> None:
    assert set(times.layers) == {"0.weight", "3.weight", "4.weight", "6.weight", "9.weight"}
    (strided,) = times.layers["4.weight"]
    assert (strided.kernel, strided.stride, strided.height, strided.width) == ((3, 3), (2, 2), 16, 16)
    assert times.layers["3.weight"][0].depthwise and times.layers["9.weight"][0].kernel == (1, 1)
    assert times("1.weight", 48, 48) == 0


def test_a_line_takes_what_an_image_of_height_1_does() -> None:
    line = nn.Sequential(nn.Conv1d(8, 32, 5, 2, dilation=3), nn.Conv1d(32, 32, 3, groups=32), nn.Conv1d(32, 24, 1))
    image = nn.Sequential(
        nn.Conv2d(8, 32, (1, 5), (1, 2), dilation=(1, 3)), nn.Conv2d(32, 32, (1, 3), groups=32), nn.Conv2d(32, 24, 1)
    )
    target, found = find_target("rpi4"), []
    for model, shape in ((line, (2, 8, 50)), (image, (2, 8, 1, 50))):
        inputs = (torch.randn(shape),)
        found.append(layer_times(canonicalize(capture(model.eval(), inputs)), target))
    assert found[0].layers == found[1].layers and set(found[0].layers) == {"0.weight", "1.weight", "2.weight"}
    assert found[0]("0.weight", 8, 32) > 0


def test_cycles_are_near_the_arithmetic_floor(times: LayerTimes) -> None:
    """One vector product a cycle is the least there is for a direct kernel; Winograd's may do with less."""
    floor = 16 * 16 * 64 * 48 * 9 / 4
    assert floor <= times("4.weight", 48, 64) <= 1.3 * floor
    unit = LayerTimes({"a": times.layers["0.weight"]}, find_target("rpi4").machine)
    assert 0.2 < unit("a", 48, 48) / (32 * 32 * 48 * 48 * 9 / 4) < 1


def test_time_steps_with_the_vectors(times: LayerTimes) -> None:
    """Channels that start no new vector cost nothing; more inputs always cost more."""
    row = times.table("6.weight", (64,), (33, 34, 35, 36, 37, 40))[0]
    assert row[0] == row[1] == row[2] == row[3] < row[4] == row[5]
    assert times("6.weight", 32, 96) < times("6.weight", 64, 96)
    assert times("3.weight", 1, 45) == times("3.weight", 1, 48) < times("3.weight", 1, 49)


@pytest.mark.parametrize(("halves", "cheaper"), [(True, True), (False, False)])
def test_half_a_vector_is_worth_choosing_where_it_takes_half_the_time(
    halves: bool, cheaper: bool, times: LayerTimes
) -> None:
    alone = LayerTimes({"a": times.layers["6.weight"]}, Machine(64, 32, 2**20, halves=halves))
    assert (alone("a", 64, 8) < alone("a", 64, 16)) == cheaper
    assert alone("a", 64, 24) <= alone("a", 64, 32) < alone("a", 64, 33)


def test_pruning_reaches_half_the_time() -> None:
    result = reconvene.prune(network(), X, target="rpi4", latency=0.5)
    options = result.report.options
    assert 0.35 < options["modelled_latency"] <= 0.5 and 0 < options["sparsity"] < 1
    target, times = find_target("rpi4"), layer_times(canonicalize(capture(network(), X)), find_target("rpi4"))
    after = layer_times(canonicalize(capture(result.module, X)), target)
    dense = {name: tuple(p.shape) for name, p in network().named_parameters() if p.dim() > 1}
    small = {name: tuple(p.shape) for name, p in result.module.named_parameters() if p.dim() > 1}
    ratio = sum(after(n, s[1], s[0]) for n, s in small.items()) / sum(times(n, s[1], s[0]) for n, s in dense.items())
    assert ratio == pytest.approx(options["modelled_latency"], rel=1e-6)


def test_no_width_costs_as_much_as_a_larger_one() -> None:
    """Of every group, each larger width would make the network slower."""
    view = dependency_view(canonicalize(capture(network(), X)))
    times, scored = layer_times(view.module, find_target("host")), by_magnitude(view)
    found = decide_for_latency(view, scored, LatencyGoal(0.6, times)).decisions

    def total(decisions: object) -> float:
        return sum(times(name, *channels) for name, channels in layer_channels(view, decisions).items())  # type: ignore[arg-type]

    best, checked = total(found), 0
    for number, decision in enumerate(found):
        if decision.group not in scored.scores:
            continue
        for lost in range(int(decision.drop.sum())):
            wider = rounded(decision.group, scored.scores[decision.group], lost)
            assert total([*found[:number], wider, *found[number + 1 :]]) > best
            checked += 1
    assert checked


def test_bad_goals_are_refused() -> None:
    with pytest.raises(InputError, match="needs a target"):
        reconvene.prune(network(), X, latency=0.5)
    with pytest.raises(InputError, match="is outside"):
        reconvene.prune(network(), X, target="rpi4", latency=2.0)
    with pytest.raises(InputError, match=r"sparsity 0\.3 was given with a latency"):
        reconvene.prune(network(), X, sparsity=0.3, target="rpi4", latency=0.5)
