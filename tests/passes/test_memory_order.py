"""Networks compute gradients channels last unless something in them forbids it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.memory_order import arrange, best_order
from reconvene.passes.recovery import matching

SHAPE = (2, 3, 8, 8)


class ByStrides(nn.Module):
    """Its ``view`` is possible only where the channels of an image lie one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.convolution(x).view(x.shape[0], -1))


def test_channels_last_unless_an_operator_asks_for_strides() -> None:
    assert best_order(capture(nn.Conv2d(3, 4, 3), (torch.randn(SHAPE),))) == torch.channels_last
    assert best_order(capture(ByStrides(), (torch.randn(SHAPE),))) == torch.contiguous_format


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


@pytest.mark.parametrize(("channels", "last"), [(4, False), (8, True)])
def test_inputs_are_matched_in_that_order_too(channels: int, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 8, 1, 2), nn.BatchNorm2d(8)
    module = canonicalize(capture(nn.Sequential(*layers).eval(), (torch.randn(SHAPE),)))
    tried, before = list[bool](), matching._runs

    def runs(given: matching._Matching, inputs: list[Tensor]) -> bool:
        tried.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
        return before(given, inputs)

    monkeypatch.setattr(matching, "_runs", runs)
    (found,) = matching.matched(module, [torch.randn(SHAPE)], 2)
    assert tried == [last] and found.is_contiguous() and bool(found.isfinite().all())


def test_arranging_keeps_values_and_other_ranks() -> None:
    module = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv3d(2, 3, 3), nn.BatchNorm2d(4)])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    arrange(module, torch.channels_last)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last) and module[1].weight.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
