"""The order of memory that a network trains in changes its speed only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.training import loop
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.memory_order import best_order
from tests.driver.training.test_loop import PRESET, SHAPE, images, weights


class ByStrides(nn.Module):
    """Its ``view`` is possible only where the channels of an image lie one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convolution(x).view(x.shape[0], -1))


def by_strides() -> CapturedModule:
    torch.manual_seed(0)
    return capture(ByStrides(), (torch.randn(SHAPE),), ({0: torch.export.Dim.DYNAMIC},))


def test_a_network_with_a_view_trains(tmp_path: Path) -> None:
    done = loop.train(by_strides(), images(), images(32, 1), PRESET, tmp_path)
    assert done.rows[-1]["train_loss"] < done.rows[0]["train_loss"]


def test_both_orders_train_to_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for rounding, and for dropout, which draws in the order of memory."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(72, 2)
    model = capture(nn.Sequential(*layers), (torch.randn(SHAPE),), ({0: torch.export.Dim.DYNAMIC},))
    assert best_order(model) == torch.channels_last
    last = loop.train(model, images(), images(32, 1), PRESET, tmp_path / "last")
    monkeypatch.setattr(loop, "best_order", lambda module: torch.contiguous_format)
    first = loop.train(model, images(), images(32, 1), PRESET, tmp_path / "first")
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(last)[name], value, rtol=1e-3, atol=1e-4)
    assert all(value.is_contiguous() for value in last.module.state_dict().values())
