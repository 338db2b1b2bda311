"""Far dilated windows, of which taps outside of the image are left out: against PyTorch, with all kinds of neighbours."""

from __future__ import annotations

import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.outside import left_out
from tests.backends.kernels.test_lines import Side, agree


def test_branches_of_a_pyramid() -> None:
    branches = [
        *[nn.Conv2d(20, 20, 3, padding=d, dilation=d) for d in (1, 2, 6)],
        nn.Conv2d(20, 20, 3, padding=5, dilation=5, groups=20),
        nn.Conv2d(20, 24, (5, 3), (2, 1), (20, 3), (10, 3), groups=2),
        nn.Conv2d(20, 7, (2, 3), padding=(4, 9), dilation=(9, 9)),
    ]
    agree(nn.Sequential(nn.Conv2d(5, 20, 1), Side(*branches)), torch.randn(3, 5, 9, 11))


def test_only_far_ones_leave_the_border_out() -> None:
    """An image that no other layer pads has no rows of zeros above it, and where one does, it has."""
    alone = nn.Sequential(nn.Conv2d(5, 20, 1), nn.Conv2d(20, 20, 3, padding=6, dilation=6))
    beside = nn.Sequential(alone[0], Side(alone[1], nn.Conv2d(20, 20, 5, padding=2)))
    x = torch.randn(1, 5, 9, 8)
    agree(beside, x)
    lives = [compile(model.float().eval(), (x,), check=False).memory.arena_bytes for model in (alone, beside)]
    assert lives[0] < lives[1]
    weights = Weights(torch.ones(4, 4, 3, 3).numpy(), torch.zeros(4).numpy())
    far = Convolution(weights, padding=(6, 1, 6, 1), dilation=(6, 1))
    assert left_out(far, 40, 40, "float32") == (True, False) and left_out(far, 49, 49, "float32") == (False, False)
    assert left_out(far, 40, 40, "int8") == (False, False)


def test_sparse_layers_in_planes_have_their_border() -> None:
    torch.manual_seed(2)
    layers: list[nn.Module] = [nn.Conv2d(4, 48, 1)]
    for dilation in (4, 6):
        layer = nn.Conv2d(48, 48, 3, padding=dilation, dilation=dilation)
        with torch.no_grad():
            layer.weight *= torch.rand_like(layer.weight) < 0.06
        layers += [nn.ReLU(), layer]
    agree(nn.Sequential(*layers), torch.randn(1, 4, 12, 13))
