"""The original conversion: what it removes of small networks, counted by hand, and what ours removes more."""

from __future__ import annotations

import torch
from single_pass import single_pass
from torch import nn

import reconvene
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule

X = torch.randn(2, 3, 8, 8)


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2),
    )  # fmt: skip


def captured(model: nn.Module) -> CapturedModule:
    return capture(model.eval(), (X,))


def test_filters_of_zeros_go_with_what_reads_them() -> None:
    model = chain()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[3].weight[[0, 4]] = 0
    found = single_pass(captured(model))
    assert found.channels == 3
    assert found.parameters == (3 * 3 * 9 + 3) + 2 * 3 + 3 * 3 * 9 + 2 * 3 + (3 * 2 + 2)


def test_it_drops_what_normalisation_makes_of_zeros() -> None:
    model = chain()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[1].bias[1] = 3.0
    module = captured(model)
    assert not torch.allclose(single_pass(module).module(X), module(X))
    model[1].bias.data[1] = 0.0
    model[0].bias.data[1] = 0.0
    module = captured(model)
    torch.testing.assert_close(single_pass(module).module(X), module(X))


def test_it_does_not_follow_what_dies_in_turn() -> None:
    """All filters that read channel 2 are zero there, so it is dead; and filter 3 sees zero channels only."""
    model = chain()
    with torch.no_grad():
        model[3].weight[:, 2] = 0
    module = captured(model)
    assert single_pass(module).channels == 0
    assert reconvene.compact(module, (X,)).module.get_parameter("0.weight").shape[0] == 3


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 4, 1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        added: torch.Tensor = self.head(x + self.last(torch.relu(self.inner(x))))
        return added


def test_residual_outputs_stay() -> None:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        model.first.weight[0] = 0
        model.last.weight[0] = 0
        model.inner.weight[0] = 0
    found = single_pass(captured(model))
    assert found.channels == 1
    assert found.parameters == (3 * 4 + 4) + (4 * 5 + 5) + (5 * 4 + 4) + (4 * 2 + 2)


def test_a_layer_of_zeros_keeps_one_channel() -> None:
    model = chain()
    model[0].weight.data.zero_()
    assert single_pass(captured(model)).channels == 3
