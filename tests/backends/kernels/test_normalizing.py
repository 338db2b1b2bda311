"""Normalisation of groups of channels and of rows: against PyTorch in float64, far from zero too, none of it TVM's code."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from tests.backends.kernels.test_lines import Apply, Side, agree


@pytest.mark.parametrize(("size", "batch"), [((7,), 3), ((3, 5), 2)])
def test_groups_of_channels(size: tuple[int, ...], batch: int) -> None:
    line = len(size) == 1
    norms = [
        nn.Sequential(nn.GroupNorm(1, 20, eps=1e-8), nn.PReLU()),
        nn.GroupNorm(4, 20),
        nn.Sequential(nn.GroupNorm(20, 20, affine=False), nn.GELU()),
        nn.InstanceNorm1d(20, affine=True) if line else nn.InstanceNorm2d(20),
        nn.Sequential(nn.GroupNorm(2, 20), (nn.Conv1d if line else nn.Conv2d)(20, 3, 3, padding=2)),
    ]
    for norm in [part for each in norms for part in each.modules() if getattr(part, "affine", False)]:
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    layer = (nn.Conv1d if line else nn.Conv2d)(3, 20, 1)
    agree(nn.Sequential(layer, Side(*norms)), torch.randn(batch, 3, *size))


def test_channels_that_lie_in_any_order() -> None:
    """Halves that change places, and joined ones with gaps between them."""
    layers = [
        nn.Conv1d(3, 24, 1),
        Apply(lambda x: torch.cat([x[:, 12:], x[:, :5]], 1)),
        nn.GroupNorm(1, 17),
    ]
    agree(nn.Sequential(*layers), torch.randn(2, 3, 9))


def test_rows_of_features() -> None:
    layers = [nn.LayerNorm(70), nn.Linear(70, 33), nn.LayerNorm(33, elementwise_affine=False), nn.Linear(33, 5)]
    nn.init.uniform_(layers[0].weight)
    nn.init.uniform_(layers[0].bias)
    agree(nn.Sequential(*layers), torch.randn(3, 6, 70))
    agree(nn.LayerNorm(3), torch.randn(5, 3))


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 16), nn.InstanceNorm2d(16), nn.LayerNorm(6)])
def test_numbers_far_from_zero_and_constant_ones(norm: nn.Module) -> None:
    """A mean of 10,000 deviations, by the same rounding of the input as PyTorch's in float64; of no deviation the offset."""
    far = torch.randn(1, 16, 4, 6) + 1e4
    with torch.no_grad():
        expected = norm.double()(far.double())
        norm.float()
    built = compile(norm.eval(), (far,), check=False)
    assert built.foreign == ()
    torch.testing.assert_close(built.run(far).double(), expected, rtol=0, atol=2e-5)
    assert not built.run(torch.full_like(far, 3e3)).any()


def test_a_board_has_them() -> None:
    model = nn.Sequential(nn.Conv1d(4, 9, 1), nn.GroupNorm(3, 9), nn.Conv1d(9, 4, 3), nn.LayerNorm(7))
    assert compile(model.eval(), (torch.randn(1, 4, 9),), "rpi2", check=False).foreign == ()


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 2), nn.GroupNorm(2, 2), nn.InstanceNorm2d(2)])
@pytest.mark.parametrize("size", [5e18, 1e25, 1e37])
def test_squares_that_are_no_float32(norm: nn.Module, size: float) -> None:
    """Sums of them are float64 all the way."""
    x = torch.tensor([1.0, -1.0, 2.0, -2.0] * 8).reshape(1, 2, 4, 4) * size
    built = compile(norm.eval(), (x,), check=False)
    assert built.foreign == ()
    expected = copy.deepcopy(norm).double()(x.double())
    torch.testing.assert_close(built.run(x).double(), expected, rtol=1e-5, atol=1e-6)
