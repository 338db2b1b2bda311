"""Networks with zeros that nobody has trained: errors worked out by hand, statistics set right, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.recovery.untrained import Untrained


def captured(model: nn.Module, *inputs: Tensor) -> CapturedModule:
    return canonicalize(capture(model.eval(), inputs))


def test_an_error_by_hand() -> None:
    """Of (3, 4) and (1, 0) the second output goes: 16 of 26, in one call or in two."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    x = torch.tensor([[3.0, 2.0], [1.0, 0.0]])
    mask = {"0.weight": torch.tensor([[True, True], [False, False]])}
    module = captured(nn.Sequential(layer), x)
    for calls in ([(x,)], [(x[:1],), (x[1:],)]):
        trials = Untrained(module, calls)
        assert trials.error({}) == 0
        assert trials.error(mask) == pytest.approx(16 / 26)
        assert trials.error({}) == 0
    assert layer.weight.data.tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_statistics_are_those_of_the_network_with_zeros() -> None:
    """Where stored ones are those of the inputs, what is found is what a training would find on them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=None), nn.ReLU(), nn.Conv2d(3, 2, 1))
    x = torch.randn(8, 2, 6, 6)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        dense = model[0](x)
        norm.running_mean.copy_(dense.mean((0, 2, 3)))  # type: ignore[union-attr]
        norm.running_var.copy_(dense.var((0, 2, 3), unbiased=False))  # type: ignore[union-attr]
    mask = torch.rand(3, 2, 3, 3) > 0.5
    trials = Untrained(captured(model, x), [(x[:4],), (x[4:],)])
    found = trials.statistics({"0.weight": mask})
    with torch.no_grad():
        small = torch.conv2d(x, model[0].weight * mask, model[0].bias)  # type: ignore[operator, arg-type]
    assert torch.allclose(found["1.running_mean"], small.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(found["1.running_var"], small.var((0, 2, 3), unbiased=False), rtol=1e-4)
    again = trials.statistics({})
    assert torch.allclose(again["1.running_mean"], dense.mean((0, 2, 3)), atol=1e-5)


def test_right_statistics_make_the_error_smaller() -> None:
    """A filter that loses a weight of what never changes is the same after normalisation."""
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.BatchNorm2d(1))
    model[0].weight.data = torch.tensor([[[[1.0]], [[5.0]]]])
    x = torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 1.0
    trials = Untrained(captured(model, x), [(x,)])
    mask = {"0.weight": torch.tensor([[[[True]], [[False]]]])}
    assert trials.error(mask) == pytest.approx(0, abs=1e-9)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) + self.calls


def test_what_cannot_be_tried_is_told() -> None:
    x = torch.randn(1, 2)
    with pytest.raises(InputError, match="only networks without state can be tried so, and this one writes to"):
        Untrained(captured(Counter(), x), [(x,)])
    wide = torch.full((1, 2), 3e38)
    with pytest.raises(InputError, match="outputs on the calibration inputs are no finite numbers"):
        Untrained(captured(nn.Linear(2, 2), x), [(wide * 10,)])
