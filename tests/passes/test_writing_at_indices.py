"""Channels of what is written at indices that only come with the input: messages of a graph, masked values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import compact

from ..support.models import assert_exact, masked_copy

DOUBLE = {"dtype": torch.float64}


class Messages(nn.Module):
    """Rows of nodes travel along edges and are summed, averaged, written over and masked where they arrive."""

    def __init__(self, times: float = 1.0) -> None:
        super().__init__()
        self.node, self.message, self.out = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.times = times

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.node(x).relu()
        sent, target = self.message(h)[edges[0]].relu(), edges[1]
        total = torch.zeros(h.shape[0], 16, **DOUBLE).index_add(0, target, sent, alpha=self.times)
        spread = target[:, None].expand(-1, 16)
        mean = torch.zeros_like(h).scatter_reduce(0, spread, sent, "mean", include_self=False)
        mean = mean.clone()
        mean[target[:1]] = 0.0
        h = h.clone()
        h[h > 1] = 0.0
        return self.out(total + mean + h)


def _half_gone(model: nn.Module, dynamic_shapes: object = None) -> tuple[float, list[int]]:
    """Difference on another graph with every other channel gone, and the widths that are left."""
    torch.manual_seed(0)
    half = torch.arange(16) % 2 == 0
    masks = {f"{layer}.{kind}": half for layer in ("node", "message") for kind in ("weight", "bias")}
    example = (torch.randn(7, 6, **DOUBLE), torch.randint(0, 7, (2, 12)))
    result = compact(model, example, masks, dynamic_shapes=dynamic_shapes)
    other = (torch.randn(7, 6, **DOUBLE), torch.randint(0, 7, (2, 12)))
    full = {name: mask if mask.dim() == 1 and "bias" in name else mask[:, None] for name, mask in masks.items()}
    parameters = dict(model.named_parameters())
    full = {name: mask.expand_as(parameters[name]) for name, mask in full.items()}
    with torch.no_grad():
        masked, small = masked_copy(model, full)(*other), result.module(*other)
    assert torch.equal(masked.isnan(), small.isnan())
    return float((masked - small).nan_to_num(0.0).abs().max()), [
        result.module.node.weight.shape[0],
        result.module.message.weight.shape[0],
    ]


@pytest.mark.parametrize("varies", [False, True], ids=["sizes of the example", "any number of nodes and edges"])
def test_channels_of_messages_go(varies: bool) -> None:
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)
    difference, widths = _half_gone(Messages().double(), ({0: nodes}, {1: edges}) if varies else None)
    assert widths == [8, 8]
    assert difference < 1e-12


def test_zeros_times_infinity_are_no_zeros() -> None:
    difference, widths = _half_gone(Messages(float("inf")).double())
    assert difference < 1e-12
    assert widths == [16, 16]


class Assigned(nn.Module):
    """Assignments to all channels as Python writes them: the slices before the index take everything."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x).relu().clone()
        rows = torch.tensor([0, 3, -1])
        h[:, :, rows] = h[:, :, :3] * 2
        h[:, :, rows, rows] *= 0.5
        h[:, :, :, torch.arange(8) > 5] = 0.0
        return self.after(h[..., :0].sum(-1, keepdim=True) + h)


def test_assignments_to_all_channels_let_them_go() -> None:
    result = assert_exact(Assigned(), (torch.randn(2, 3, 8, 8),), "M2")
    assert result.module.before.weight.shape[0] == 4
