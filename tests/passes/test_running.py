"""A graph whose values are rounded otherwise: by how much its outputs move is what the certificate forgives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.running import Shaken


class Values(nn.Module):
    """An input, a weight, a view of one that was computed, whole numbers, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x + self.weight
        return y, y.view(16), x.clone(), (x > 0).sum(), self.weight * 1.0, x


def test_what_a_call_computes_is_moved_by_its_rounding_and_nothing_else_is() -> None:
    module, x = capture(Values().eval(), (torch.randn(4, 4),)), torch.randn(4, 4)
    shaken = Shaken(module, torch.float64)
    inputs = (x.double(),)
    total, view, copied, count, scaled, given = shaken.values(inputs, 0)
    assert torch.equal(given, inputs[0])
    expected = inputs[0] + module.weight.double()
    assert 0 < float((total - expected).abs().max()) < 1e-12
    assert torch.equal(view, total.reshape(16)), "a view is what it is a view of"
    assert 0 < float((copied - inputs[0]).abs().max()) < 1e-12
    assert count == (x > 0).sum()
    assert 0 < float((scaled - module.weight.double()).abs().max()) < 1e-12
    again = shaken.values(inputs, 0)[0]
    assert not torch.equal(again, total), "otherwise each time"
