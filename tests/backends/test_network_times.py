"""Cycles of a network by its zeros: those of what `compile` plans, and pruning that aims at them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.compile import imported_module
from reconvene.backends.estimate.choice import KernelCycles
from reconvene.backends.kernels.base import Spec
from reconvene.backends.machines.targets import find_target
from reconvene.backends.network_times import NetworkTimes, network_times
from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.structures import find_structure

X = (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
RPI4 = find_target("rpi4")
WEIGHTS = ("0.weight", "3.weight", "5.weight", "9.weight")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def cycles() -> NetworkTimes:
    return network_times(canonicalize(capture(network(), X)), X, "rpi4")


def masks(share: float, *names: str) -> dict[str, Tensor]:
    weights, structure = network().state_dict(), find_structure("row-block:4")
    return {name: structure.mask(weights[name].square(), share) for name in names}


def test_layers_by_the_names_of_their_weights(cycles: NetworkTimes) -> None:
    found = cycles({})
    assert set(found.layers) == set(WEIGHTS) and found.unit == "cycles"
    assert sum(found.layers.values()) < found.total < 1.5 * sum(found.layers.values())


def test_more_zeros_take_less_time_in_their_layer_alone(cycles: NetworkTimes) -> None:
    """A linear layer's mask too, which the backend has as a kernel of one place; few zeros bring nothing."""
    dense, few, many = cycles({}), cycles(masks(0.1, "3.weight")), cycles(masks(0.95, "3.weight", "9.weight"))
    assert few == dense
    assert many.layers["3.weight"] < 0.25 * dense.layers["3.weight"] and many.total < 0.8 * dense.total
    assert many.layers["9.weight"] < dense.layers["9.weight"]
    assert many.layers["5.weight"] == dense.layers["5.weight"]
    assert cycles({}) == dense


def test_what_is_told_is_what_is_compiled(cycles: NetworkTimes) -> None:
    """The kernels' own figures in a network that is pruned and compiled."""
    given = masks(0.9, "3.weight", "5.weight")
    told = cycles(given)
    model = network()
    with torch.no_grad():
        for name, mask in given.items():
            model.get_parameter(name).mul_(mask)
    built = reconvene.compile(model, X, "rpi4", check=False)
    sparse = {layer.name: layer.cost for layer in built.layers if layer.zeros}
    assert sparse == pytest.approx({name: told.layers[name] for name in given})


def test_pruning_to_half_of_the_time(cycles: NetworkTimes) -> None:
    result = reconvene.prune(network(), X, structure="row-block:4", latency=0.5, target="rpi4")
    timing = result.report.timing
    assert timing is not None and timing.dense == pytest.approx(cycles({}).total)
    assert 0.45 <= timing.reached <= 0.5 and result.report.options["modelled_latency"] == timing.reached
    again = network_times(canonicalize(result.module), X, "rpi4")({})
    assert again.total == pytest.approx(timing.sparse)
    assert (result.report.options["target"], result.report.options["timed_by"]) == ("rpi4", "model")


def test_another_judge_tells_the_time_of_each_kernel_once(cycles: NetworkTimes) -> None:
    asked: list[Spec] = []

    def seconds(layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        asked.extend(spec for (spec,) in layers)
        return [[1e-9 * spec.cycles(RPI4.machine)] for (spec,) in layers]

    imported = imported_module(canonicalize(capture(network(), X)), X)
    times = NetworkTimes(imported, RPI4, seconds, "s")
    dense, sparse = times({}), times(masks(0.9, "3.weight"))
    assert dense.unit == sparse.unit == "s" and len(asked) == len(set(asked))
    assert dense.total == pytest.approx(1e-9 * cycles({}).total)
    assert sparse.layers["3.weight"] == pytest.approx(1e-9 * cycles(masks(0.9, "3.weight")).layers["3.weight"])


def test_judges_are_those_of_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(KernelCycles, "_cycles", lambda self, trial: told.append(self.target.name) or 1000.0)
    graph = canonicalize(capture(network(), X))
    found = network_times(graph, X, "rpi4", "cycles")({})
    assert set(told) == {"rpi4"} and found.unit == "cycles" and min(found.layers.values()) >= 1000
    monkeypatch.setattr(HereTimes, "__call__", lambda self, groups: [[0.5] * len(group) for group in groups])
    measured = network_times(graph, X, "host", "time")({})
    assert measured.unit == "s" and set(measured.layers.values()) == {0.5}
    with pytest.raises(InputError, match="kernels for 'rpi4' do not run on this machine"):
        network_times(graph, X, "rpi4", "time")
    with pytest.raises(InputError, match="told by model, cycles, time, not by 'moon'"):
        network_times(graph, X, "rpi4", "moon")


def test_what_has_no_times_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x[0, 0]).real

    with pytest.raises(CaptureError, match="cannot compile"):
        network_times(canonicalize(capture(Odd(), X)), X, "rpi4")
    with pytest.raises(InputError, match="toaster"):
        network_times(canonicalize(capture(network(), X)), X, "toaster")
