"""Cross-layer equalisation: the same function, equal ranges, and only where that is exact."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.quantization.equalization import equalized
from reconvene.passes.quantization.preparation import prepared

IMAGES = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def uneven(*between: nn.Module, second: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *between, second).eval()
    with torch.no_grad():
        model[0].weight.mul_(10 ** torch.linspace(-2, 2, 8).view(-1, 1, 1, 1))
        model[0].bias.mul_(10 ** torch.linspace(-2, 2, 8))
    return model


CHAINS = {
    "relu": ([nn.ReLU()], nn.Conv2d(8, 4, 3)),
    "leaky": ([nn.LeakyReLU(0.1)], nn.Conv2d(8, 4, 3)),
    "pools": ([nn.ReLU(), nn.MaxPool2d(2), nn.ZeroPad2d(1), nn.AvgPool2d(2)], nn.Conv2d(8, 4, 1)),
    "depthwise": ([nn.ReLU()], nn.Conv2d(8, 16, 3, groups=8)),
    "grouped": ([nn.ReLU()], nn.Conv2d(8, 4, 3, groups=2)),
    "nothing": ([], nn.Conv2d(8, 4, 3, bias=False)),
}


@pytest.mark.parametrize(("between", "second"), CHAINS.values(), ids=CHAINS)
def test_ranges_are_equal_and_the_function_is_the_same(between: list[nn.Module], second: nn.Module) -> None:
    model = uneven(*between, second=second)
    module = prepared(capture(model, (IMAGES,)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    result, pairs = equalized(module)
    assert pairs == 1
    with torch.no_grad():
        exact = model(IMAGES)
        torch.testing.assert_close(result(IMAGES), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))
    made = result.get_parameter("0.weight").abs().flatten(1).amax(1)
    reading = result.get_parameter(f"{len(model) - 1}.weight")
    groups = model[-1].groups
    read = reading.view(groups, -1, 8 // groups, *reading.shape[2:]).abs().flatten(3).amax((1, 3)).flatten()
    torch.testing.assert_close(made, read, rtol=1e-3, atol=0)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_two_layers_by_hand() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[4.0], [0.0]]))
        model[0].bias.copy_(torch.tensor([2.0, 1.0]))
        model[2].weight.copy_(torch.tensor([[0.25, 3.0]]))
    result, pairs = equalized(prepared(capture(model, (torch.randn(3, 1),))))
    # s = sqrt(4 / 0.25) = 4; the channel without weights is left alone.
    assert pairs == 1
    assert result.get_parameter("0.weight").tolist() == [[1.0], [0.0]]
    assert result.get_parameter("0.bias").tolist() == [0.5, 1.0]
    assert result.get_parameter("2.weight").tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("between", [nn.ReLU6(), nn.SiLU(), nn.Hardtanh(), nn.Softmax(1), nn.ConstantPad2d(1, 2.0)])
def test_chains_that_are_not_exact_are_left_alone(between: nn.Module) -> None:
    model = uneven(between, second=nn.Conv2d(8, 4, 3))
    result, pairs = equalized(prepared(capture(model, (IMAGES,))))
    assert pairs == 0 and torch.equal(result.get_parameter("0.weight"), model[0].weight)


def test_a_value_with_another_reader_is_left_alone() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            return self.second(x) + x

    assert equalized(prepared(capture(Residual().eval(), (IMAGES,))))[1] == 0
