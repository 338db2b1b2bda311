"""Graphs that write to buffers: what a buffer holds now is no constant, and the certificate makes several calls in turn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact
from reconvene.passes.running import Runner
from tests.support.stateful import STATEFUL, frames

CALLS = 4


def in_turn(module: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return [module(x.clone()).clone() for x in inputs]


class Hidden(nn.Module):
    """A hidden layer of sixteen channels, of which one is a constant 0, and buffers that are written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.a.weight[3] = 0
            self.a.bias[3] = 0
        self.register_buffer("gate", torch.zeros(16))
        self.register_buffer("scale", torch.zeros(3, 16))
        self.register_buffer("chosen", torch.arange(8))

    def hidden(self, x: Tensor) -> Tensor:
        return self.a(x).relu()


class Gated(Hidden):
    """All zeros in the first call."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(self.hidden(x) * self.gate)
        self.gate.add_(1)
        return y


class ScaledWeight(Hidden):
    """A weight that is computed from a written buffer."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.b.weight * self.scale
        self.scale.add_(1)
        return nn.functional.linear(self.hidden(x), weight, self.b.bias)


class Chosen(Hidden):
    """Channels that a written index takes."""

    def forward(self, x: Tensor) -> Tensor:
        part = self.hidden(x).index_select(1, self.chosen)
        self.chosen.copy_((self.chosen + 1) % 16)
        return self.b(torch.cat([part, part], 1))


@pytest.mark.parametrize("kind", [Gated, ScaledWeight, Chosen])
def test_what_a_buffer_holds_now_is_no_constant(kind: Any) -> None:
    model, inputs = kind().eval(), frames(CALLS)
    before = copy.deepcopy(model.state_dict())
    result = compact(model, (inputs[0],))
    expected = in_turn(copy.deepcopy(model), inputs)
    for found, wanted in zip(in_turn(result.module, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["gated", "rotated in a layer", "written twice", "two names"])
def test_a_compacted_graph_has_a_state_of_its_own(name: str) -> None:
    model, inputs = STATEFUL[name](), frames(CALLS)
    result = compact(model, (inputs[0],))
    expected = in_turn(copy.deepcopy(model), inputs)
    in_turn(model, inputs)
    for found, wanted in zip(in_turn(result.module, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_check_makes_several_calls_in_turn() -> None:
    result = compact(STATEFUL["counter"](), tuple(frames(1)))
    first, second, third = Runner(result.module, torch.float64).values((torch.ones(3, 4, dtype=torch.float64),))
    assert [float(value[0, 0]) for value in (first, second, third)] == [1, 2, 3]
    assert float(result.module.get_buffer("calls")) == 0


def test_a_check_leaves_the_statistics_of_a_norm_alone() -> None:
    class Trained(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(4).double(), nn.Linear(4, 2).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True))

    graph = torch.export.export(Trained(), (torch.randn(3, 4).double(),)).module()
    Runner(graph, torch.float64).values((torch.randn(3, 4).double(),))
    assert float(graph.get_buffer("norm.running_mean").abs().max()) == 0
