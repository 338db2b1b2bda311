"""Cycles of a network by its zeros: those of what `compile` plans, and pruning that aims at them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import reconvene
from reconvene.backends.network_times import NetworkCycles, network_cycles
from reconvene.frontend.base.errors import CaptureError, InputError
from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.structures import find_structure

X = (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
WEIGHTS = ("0.weight", "3.weight", "5.weight", "9.weight")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def cycles() -> NetworkCycles:
    return network_cycles(canonicalize(capture(network(), X)), X, "rpi4")


def masks(share: float, *names: str) -> dict[str, Tensor]:
    weights, structure = network().state_dict(), find_structure("row-block:4")
    return {name: structure.mask(weights[name].square(), share) for name in names}


def test_layers_by_the_names_of_their_weights(cycles: NetworkCycles) -> None:
    found = cycles({})
    assert set(found.layers) == set(WEIGHTS) and found.unit == "cycles"
    assert sum(found.layers.values()) < found.total < 1.5 * sum(found.layers.values())


def test_more_zeros_take_less_time_in_their_layer_alone(cycles: NetworkCycles) -> None:
    """A linear layer's mask too, which the backend has as a kernel of one place; few zeros bring nothing."""
    dense, few, many = cycles({}), cycles(masks(0.1, "3.weight")), cycles(masks(0.95, "3.weight", "9.weight"))
    assert few == dense
    assert many.layers["3.weight"] < 0.25 * dense.layers["3.weight"] and many.total < 0.8 * dense.total
    assert many.layers["9.weight"] < dense.layers["9.weight"]
    assert many.layers["5.weight"] == dense.layers["5.weight"]
    assert cycles({}) == dense


def test_what_is_told_is_what_is_compiled(cycles: NetworkCycles) -> None:
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


def test_pruning_to_half_of_the_time(cycles: NetworkCycles) -> None:
    result = reconvene.prune(network(), X, structure="row-block:4", latency=0.5, target="rpi4")
    timing = result.report.timing
    assert timing is not None and timing.dense == pytest.approx(cycles({}).total)
    assert 0.45 <= timing.reached <= 0.5 and result.report.options["modelled_latency"] == timing.reached
    again = network_cycles(canonicalize(result.module), X, "rpi4")({})
    assert again.total == pytest.approx(timing.sparse)
    assert result.report.options["target"] == "rpi4"


def test_what_has_no_times_is_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.eigvals(x[0, 0]).real

    with pytest.raises(CaptureError, match="cannot compile"):
        network_cycles(canonicalize(capture(Odd(), X)), X, "rpi4")
    with pytest.raises(InputError, match="toaster"):
        network_cycles(canonicalize(capture(network(), X)), X, "toaster")
