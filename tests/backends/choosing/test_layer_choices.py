"""What is said of the kernels that were chosen: of which layer, by which costs, and what its zeros are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.choosing import kept_file
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.choosing.layer_choices import LayerChoice, names_of_weights
from reconvene.backends.compile import compile
from reconvene.backends.graph.nodes import Convolution, Graph, Node, Weights
from reconvene.backends.graph.sharing import sample
from tests.support.planes import zeros_in_rows


class Net(nn.Module):
    """A dense layer, one whose zeros are for planes, a depthwise one, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64))
        self.body, self.depthwise = nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.head = nn.Linear(64, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.body(torch.relu(self.stem(x))))))
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    zeros_in_rows(net.body, 0.9, 4)
    zeros_in_rows(net.head, 0.8, 16)
    return net


X = (torch.randn(1, 3, 28, 28),)


def test_every_layer_by_the_name_of_its_weight(net: nn.Module) -> None:
    built = compile(net, X, check=False)
    layers = {layer.name: layer for layer in built.layers}
    assert list(layers) == ["stem.0.weight", "body.weight", "depthwise.weight", "head.weight"]
    assert built.cost_unit == "cycles"
    stem, body, head = layers["stem.0.weight"], layers["body.weight"], layers["head.weight"]
    assert (stem.zeros, stem.structure, stem.shape) == (0, None, (64, 3, 3, 3))
    assert (body.kernel, body.planes, body.structure) == ("gather", True, "row-block:4")
    assert body.zeros == int((net.get_parameter("body.weight") == 0).sum()) and body.weights == 64 * 64 * 9
    assert (head.kernel, head.planes, head.structure) == ("rows", False, "row-block:16")
    for layer in (body, head):
        assert layer.dense in ("convolution", "winograd") and layer.cost is not None and layer.dense_cost is not None
        assert 0 < layer.cost < 0.7 * layer.dense_cost
        assert (
            layer.dense_bytes is not None and 4 * (layer.weights - layer.zeros) < layer.bytes < 0.6 * layer.dense_bytes
        )


def test_a_layer_that_is_computed_by_the_best_dense_kernel_costs_as_much() -> None:
    torch.manual_seed(0)
    (layer,) = compile(nn.Conv2d(64, 64, 3, padding=1).eval(), (torch.randn(1, 64, 14, 14),), check=False).layers
    assert layer.kernel == layer.dense and layer.cost == layer.dense_cost is not None


def test_without_a_choice_there_are_no_costs(net: nn.Module) -> None:
    for layer in compile(net, X, check=False, choose="default").layers:
        assert layer.cost is None and layer.dense is None and layer.dense_cost is None
    assert compile(net, X, check=False, pipeline="tvm-default").layers == ()


def test_costs_are_remembered_with_choices(net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_file, "cache_folder", lambda: tmp_path)
    first = compile(net, X, choose="time", check=False)
    monkeypatch.setattr(HereTimes, "__call__", lambda self, groups: [[1.0] * len(group) for group in groups])
    again = compile(net, X, choose="time", check=False)
    assert first.cost_unit == again.cost_unit == "s"

    def by_name(layers: tuple[LayerChoice, ...]) -> dict[str, float | None]:
        return {layer.name: layer.dense_cost for layer in layers}

    assert by_name(first.layers) == by_name(again.layers)
    assert sum(cost is not None for cost in by_name(first.layers).values()) == 3


def test_a_bundle_says_nothing_of_choices(net: nn.Module, tmp_path: Path) -> None:
    from reconvene.backends.built import load_bundle

    folder = compile(net, X, check=False).export(tmp_path / "bundle")
    assert open_bundle(folder) and load_bundle(folder).layers == ()


def test_weights_are_known_again_by_what_they_hold() -> None:
    random = np.random.default_rng(0)
    one, two = random.standard_normal((2, 30, 40)).astype("float32")
    nodes = [
        Node(
            "convolution",
            [],
            (1, 30),
            detail=Convolution(Weights(kernel.astype("float64")[:, :, None, None], one[:, 0])),
        )
        for kernel in (two, one, two + 1)
    ]
    found = names_of_weights(Graph(nodes, [], nodes, True), {"one": one, "two": two, "bias": one[0]})
    assert found == {nodes[0]: "two", nodes[1]: "one"}


def test_weights_that_differ_in_few_elements_are_told_apart() -> None:
    """As those of which most are zero may: every element that is sampled is the same."""
    one, other = np.zeros((64, 64, 3, 3), "float32"), np.zeros((64, 64, 3, 3), "float32")
    one[:, :, 1, 1], other[:, :, 2, 1] = 1.0, 1.0
    kernels = [array.astype("float64") for array in (other, one)]
    nodes = [Node("convolution", [], (1, 64, 3, 3), detail=Convolution(Weights(k, np.zeros(64)))) for k in kernels]
    assert sample(kernels[0]) == sample(kernels[1])
    found = names_of_weights(Graph(nodes, [], nodes, True), {"one": one, "other": other})
    assert [found[node] for node in nodes] == ["other", "one"]
