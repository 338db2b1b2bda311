"""The order of memory that a network trains in changes its speed only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.training import loop
from reconvene.driver.training.memory_order import arrange, best_order
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from tests.driver.training.test_loop import PRESET, SHAPE, images, network, weights


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


def test_channels_last_unless_an_operator_asks_for_strides() -> None:
    assert best_order(network()) == torch.channels_last
    assert best_order(by_strides()) == torch.contiguous_format


@pytest.mark.parametrize(
    ("channels", "window", "stride", "order"),
    [
        (4, 1, 2, torch.contiguous_format), (4, 1, 1, torch.channels_last), (8, 1, 2, torch.channels_last),
        (4, 3, 2, torch.channels_last),
    ],
)  # fmt: skip
def test_narrow_pointwise_layers_with_a_stride_are_not_laid_out(
    channels: int, window: int, stride: int, order: torch.memory_format
) -> None:
    """PyTorch writes beyond the end of their gradients."""
    layers = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, window, stride), nn.Flatten(), nn.LazyLinear(2)
    model = nn.Sequential(*layers)
    model(torch.randn(SHAPE))
    assert best_order(capture(model, (torch.randn(SHAPE),))) == order


def test_a_network_with_a_view_trains(tmp_path: Path) -> None:
    done = loop.train(by_strides(), images(), images(32, 1), PRESET, tmp_path)
    assert done.rows[-1]["train_loss"] < done.rows[0]["train_loss"]


def test_arranging_keeps_values_and_other_ranks() -> None:
    module = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv3d(2, 3, 3), nn.BatchNorm2d(4)])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    arrange(module, torch.channels_last)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last) and module[1].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


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
