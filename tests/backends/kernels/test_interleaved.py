"""Transposed convolutions by phases: against PyTorch, and the phases themselves against their definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.graph.nodes import Node, Transposed, Weights
from reconvene.backends.graph.phases import has_kernels, margins_of, phases_of
from tests.backends.kernels.test_lines import Side, agree


def test_layers_of_images() -> None:
    layers = [
        nn.Sequential(nn.ConvTranspose2d(18, 20, 4, 2, 1, bias=False), nn.BatchNorm2d(20), nn.ReLU()),
        nn.Sequential(nn.ConvTranspose2d(18, 17, 3, 2, 1, 1), nn.GELU()),
        nn.ConvTranspose2d(18, 3, (2, 3), (2, 3)),
        nn.ConvTranspose2d(18, 18, 5, 2, 3, dilation=3, groups=18),
        nn.ConvTranspose2d(18, 24, (3, 4), (1, 2), (0, 2), dilation=(2, 1), groups=2),
        nn.Sequential(nn.ConvTranspose2d(18, 20, 3, 2), nn.Conv2d(20, 9, 3, padding=1)),
    ]
    agree(Side(*layers), torch.randn(3, 18, 5, 4))


def test_layers_of_lines() -> None:
    layers = [
        nn.Sequential(nn.ConvTranspose1d(20, 10, 16, 8, 4), nn.LeakyReLU(0.1)),
        nn.ConvTranspose1d(20, 1, 10, 5, bias=False),
        nn.Sequential(nn.ConvTranspose1d(20, 33, 4, 3, 1, 2), nn.Conv1d(33, 6, 5, padding=4, dilation=2)),
        nn.ConvTranspose1d(20, 20, 3, 1, 1, groups=20),
    ]
    agree(Side(*layers), torch.randn(1, 20, 11))


def test_what_is_added_lies_as_the_result_does() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.beside, self.gate = nn.ConvTranspose2d(9, 20, 2, 2), nn.Conv2d(3, 20, 1), nn.Conv2d(9, 20, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return F.relu(self.up(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))) + self.beside(y))

    agree(Skipping(), torch.randn(2, 9, 3, 5), torch.randn(2, 3, 6, 10))


def test_outputs_that_no_tap_reaches_are_left_to_tvm() -> None:
    agree(nn.ConvTranspose1d(4, 6, 2, 3), torch.randn(1, 4, 7), foreign=("nn.conv1d_transpose", "add"))


@pytest.mark.parametrize("target", ["rpi4", "rpi2"])
def test_boards_have_them(target: str) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(9, 20, 4, 2, 1), nn.ConvTranspose2d(20, 20, 2, 2, groups=20))
    assert compile(model.eval(), (torch.randn(1, 9, 5, 4),), target, check=False).foreign == ()


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "more"),
    [
        (4, 2, 1, 1, 0),
        (3, 2, 0, 1, 1),
        (5, 3, 2, 2, 0),
        (2, 2, 0, 1, 0),
        (3, 1, 1, 3, 0),
        (7, 3, 5, 1, 2),
        (3, 2, 4, 3, 0),
    ],
)
def test_phases_are_what_pytorch_defines(size: int, stride: int, padding: int, dilation: int, more: int) -> None:
    """Each phase as a plain convolution, its outputs put where it says: bit for bit the whole layer, of whole numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-9, 9, (2, 3, 1, 8), generator=generator).double()
    weight = torch.randint(-9, 9, (3, 4, 1, size), generator=generator).double()
    layer = {"stride": (1, stride), "padding": (0, padding), "dilation": (1, dilation), "output_padding": (0, more)}
    expected = F.conv_transpose2d(x, weight, None, **layer)
    detail = Transposed(
        Weights(weight.numpy().swapaxes(0, 1), np.zeros(4)), (1, stride), (0, padding, 0, padding), (1, dilation)
    )
    node = Node("transposed", [Node("input", [], tuple(x.shape))], tuple(expected.shape), detail=detail)
    assert has_kernels(detail)
    found, phases = torch.full_like(expected, torch.nan), phases_of(node)
    for phase in phases:
        convolution = phase.convolution
        top, left, bottom, right = convolution.padding
        padded = F.pad(x, (left, right, top, bottom))
        part = F.conv2d(padded, torch.from_numpy(convolution.weights.kernel.copy()), dilation=convolution.dilation)
        assert part.shape[2:] == phase.size
        found[:, :, phase.first[0] :: 1, phase.first[1] :: stride] = part
    assert torch.equal(found, expected)
    assert sum(phase.convolution.weights.kernel.size for phase in phases) == weight.numel()
    assert margins_of(node) == tuple(max(phase.convolution.padding[side] for phase in phases) for side in range(4))
