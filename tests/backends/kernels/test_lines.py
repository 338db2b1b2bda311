"""Convolutions, pools and their like along one axis, which are images of height 1: against PyTorch, none of TVM's code."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reconvene.backends.compile import compile

TOLERANCE = 1e-5


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def agree(module: nn.Module, *inputs: torch.Tensor, foreign: tuple[str, ...] = ()) -> None:
    """Compiles `module` and compares it with PyTorch in float64, relative to the largest output."""
    torch.manual_seed(0)
    built = compile(module.eval(), inputs, check=False)
    assert built.foreign == foreign
    got = built.run(*inputs)
    with torch.no_grad():
        expected = module.double()(*(given.double() for given in inputs))
    pairs = zip(got, expected, strict=True) if isinstance(expected, tuple) else [(got, expected)]
    for mine, theirs in pairs:
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=TOLERANCE * float(theirs.abs().max()) + 1e-7)


class Side(nn.Module):
    """Layers that read one line, each by itself."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(layer(x) for layer in self.layers)


@pytest.mark.parametrize(("batch", "length"), [(1, 37), (3, 24)])
def test_convolutions_of_every_form(batch: int, length: int) -> None:
    layers = [
        nn.Conv1d(20, 33, 3, padding=1),
        nn.Conv1d(20, 16, 4, stride=3),
        nn.Conv1d(20, 7, 3, padding=8, dilation=5, bias=False),
        nn.Conv1d(20, 18, 9, stride=2, padding=4, groups=2),
        nn.Conv1d(20, 20, 5, padding="same", groups=20, dilation=2),
        nn.Conv1d(20, 40, 3, stride=2, groups=20),
        nn.Conv1d(20, 31, 1),
    ]
    agree(Side(*layers), torch.randn(batch, 20, length))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_first_layer_of_a_sound(channels: int) -> None:
    agree(nn.Sequential(nn.Conv1d(channels, 19, 10, stride=5), nn.GELU()), torch.randn(2, channels, 83))


class Causal(nn.Module):
    """A residual block as in Bai et al. 2018: padding on one side, as it is written with `F.pad` and with what is cut off."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.first = nn.Conv1d(20, 24, 3, dilation=dilation)
        self.second = nn.Conv1d(24, 20, 3, dilation=dilation, padding=self.reach)
        self.norm = nn.BatchNorm1d(24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm(self.first(F.pad(x, (self.reach, 0)))))
        return F.relu(F.relu(self.second(y)[:, :, : -self.reach]) + x)


@pytest.mark.parametrize("batch", [1, 3])
def test_causal_blocks(batch: int) -> None:
    agree(nn.Sequential(nn.Conv1d(4, 20, 1), Causal(1), Causal(4)), torch.randn(batch, 4, 21))


def test_what_surrounds_convolutions_stays_in_blocks() -> None:
    class Gates(nn.Module):
        """Squeeze and excitation, halves of channels, joined channels, every second sample."""

        def __init__(self) -> None:
            super().__init__()
            self.wide, self.squeeze, self.excite = nn.Conv1d(5, 40, 3), nn.Conv1d(20, 6, 1), nn.Conv1d(6, 20, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = self.wide(x).chunk(2, 1)
            y = torch.tanh(left) * torch.sigmoid(right)
            y = y * torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean(2, keepdim=True)))))
            return torch.cat([y, 2 * left - y / 3], 1)[:, 1:-2, 1::2]

    agree(Gates(), torch.randn(2, 5, 23))


def test_pools_of_lines() -> None:
    pools = [
        nn.MaxPool1d(3, 2, 1),
        nn.MaxPool1d(2, ceil_mode=True),
        nn.AvgPool1d(4, 3, 2),
        nn.AvgPool1d(3, 1, 1, count_include_pad=False),
        nn.AdaptiveAvgPool1d(3),
        nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(20, 3)),
        Apply(lambda x: x.mean(-1)),
    ]
    agree(nn.Sequential(nn.Conv1d(6, 20, 3), Side(*pools)), torch.randn(3, 6, 29))


def test_the_largest_of_all_pixels() -> None:
    """As over the points of PointNet; NaN is the largest of all."""
    forms = [
        Apply(lambda x: x.max(2)[0]),
        Apply(lambda x: x.amax(-1, keepdim=True)),
        Apply(lambda x: x.max(2, True).values),
    ]
    layer = nn.Conv1d(3, 20, 1)
    agree(nn.Sequential(layer, nn.ReLU(), Side(*forms)), torch.randn(2, 3, 37))
    agree(
        nn.Sequential(nn.Conv2d(3, 20, 1), Apply(lambda x: x.amax((2, 3))), nn.Linear(20, 4)), torch.randn(3, 3, 6, 8)
    )
    layer, x = nn.Conv1d(1, 1, 1, bias=False), torch.randn(1, 1, 16)
    model = nn.Sequential(layer, Apply(lambda x: x.amax(2)))
    for place in (0, 5, 15):
        broken = x.clone()
        broken[0, 0, place] = float("nan")
        assert compile(model, (x,), check=False).run(broken).isnan().all()


def test_lines_that_become_images_and_back() -> None:
    layers = [
        nn.Conv1d(3, 20, 3, padding=1),
        Apply(lambda x: x.unsqueeze(2)),
        nn.Conv2d(20, 18, (1, 5), padding=(0, 2)),
        Apply(lambda x: F.relu(x).squeeze(2)),
        nn.Conv1d(18, 9, 3),
        Apply(lambda x: x.flatten(1)),
        nn.Linear(9 * 11, 4),
    ]
    agree(nn.Sequential(*layers), torch.randn(2, 3, 13))


def test_activations_are_part_of_layers() -> None:
    functions = [nn.PReLU(24), nn.PReLU(), nn.ELU(0.7), nn.SELU(), nn.CELU(1.3), nn.LeakyReLU(0.2), nn.Hardswish()]
    for number, function in enumerate(functions):
        with torch.no_grad():
            for slopes in function.parameters():
                slopes.uniform_(-0.5, 0.5)
        functions[number] = nn.Sequential(nn.Conv2d(5, 24, 1), function)
    agree(Side(*functions), 3 * torch.randn(2, 5, 3, 4))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e-7, 1e-7, -90.0, 0.0])
def test_exponential_activations_hold_at_the_ends(value: float) -> None:
    layer = nn.Conv1d(1, 1, 1, bias=False)
    nn.init.ones_(layer.weight)
    model, x = nn.Sequential(layer, nn.ELU(0.7)), torch.full((1, 1, 3), value)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(compile(model, (x,), check=False).run(x), expected, rtol=1e-6, atol=0, equal_nan=True)


def test_a_mostly_zero_line() -> None:
    """In planes, a channel each."""
    torch.manual_seed(1)
    layers = [nn.Conv1d(4, 48, 3, padding=1)]
    for dilation in (2, 4):
        layer = nn.Conv1d(48, 48, 3, padding=dilation, dilation=dilation)
        with torch.no_grad():
            layer.weight *= torch.rand_like(layer.weight) < 0.08
        layers += [nn.ReLU(), layer]
    model, x = nn.Sequential(*layers).eval(), torch.randn(2, 4, 400)
    assert any(layer.planes for layer in compile(model, (x,), check=False).layers)
    agree(model, x)


@pytest.mark.parametrize("target", ["rpi4", "rpi2"])
def test_boards_have_no_general_code_either(target: str) -> None:
    model = nn.Sequential(nn.Conv1d(9, 20, 5, padding=4, dilation=2), nn.PReLU(20), nn.MaxPool1d(2))
    assert compile(model.eval(), (torch.randn(1, 9, 31),), target, check=False).foreign == ()
