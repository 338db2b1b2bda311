"""Parameters, multiply-accumulates and bytes against counts by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import reconvene
from reconvene.frontend.capture import capture
from reconvene.passes.compaction import compact
from reconvene.passes.outcome import Size

from ..support.models import randomise


def sizes(model: nn.Module, shape: tuple[int, ...], masks: Any = None) -> tuple[Size, Size]:
    """Before and after."""
    example = (torch.randn(shape),)
    result = compact(capture(randomise(model), example), example, masks)
    return result.before, result.after


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 8, 3), (1, 3, 8, 8), 6 * 6 * 8 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 8, 8), 2 * 4 * 4 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), (1, 8, 8, 8), 6 * 6 * 8 * 9),
        (nn.Conv2d(8, 4, 1, groups=2), (1, 8, 5, 5), 5 * 5 * 4 * 4),
        (nn.Conv1d(3, 8, 5), (1, 3, 12), 8 * 8 * 3 * 5),
        (nn.Conv3d(3, 4, 2), (1, 3, 4, 4, 4), 27 * 4 * 3 * 8),
        (nn.ConvTranspose2d(3, 8, 2, stride=2), (1, 3, 4, 4), 16 * 3 * 8 * 4),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), (1, 4, 4, 4), 16 * 4 * 4 * 9),
        (nn.Linear(6, 8), (2, 5, 6), 2 * 5 * 6 * 8),
        (nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8), 64 * 8 * 3 * 9),
        (nn.BatchNorm2d(8), (1, 8, 4, 4), 0),
    ],
)
def test_multiply_accumulates(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert sizes(model, shape)[0].macs == macs


def test_products_of_computed_tensors_count() -> None:
    class Product(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x @ x.transpose(1, 2)).softmax(-1) @ x + F.scaled_dot_product_attention(x, x, x)

    assert sizes(Product(), (2, 5, 6))[0].macs == 4 * 2 * 5 * 5 * 6


def test_parameters_and_bytes() -> None:
    before, _ = sizes(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (1, 3, 8, 8))
    parameters = 8 * 3 * 9 + 8 + 16
    assert before.parameters == parameters
    assert before.bytes == 4 * (parameters + 16) + 8  # The number of batches seen is an int64.


def test_a_tied_weight_counts_once_in_size_and_twice_in_work() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x).relu())

    before, _ = sizes(Tied(), (1, 6))
    assert (before.parameters, before.macs) == (36, 72)


def test_after_compaction_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    keep = torch.arange(8) > 2
    before, after = sizes(model, (1, 3, 8, 8), {"0.weight": keep, "0.bias": keep})
    assert before.macs == 64 * 8 * 27 + 36 * 4 * 8 * 9 + 144 * 5
    assert after.macs == 64 * 5 * 27 + 36 * 4 * 5 * 9 + 144 * 5
    assert before.parameters - after.parameters == 3 * (27 + 1) + 4 * 3 * 9
    assert before.bytes - after.bytes == 4 * (before.parameters - after.parameters)


def test_layers_before_and_after() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2))
    keep = torch.arange(8) > 2
    example = (torch.randn(1, 3, 8, 8),)
    masks = {name: keep for name in ("0.weight", "0.bias", "1.weight", "1.bias")}
    first, last = compact(capture(randomise(model), example), example, masks).layers
    assert (first.name, first.operator, first.channels_before, first.channels_after) == ("0", "aten.conv2d", 8, 5)
    assert (last.name, last.channels_before, last.channels_after) == ("3", 4, 4)
    assert first.size_before == Size(224, 64 * 8 * 27, 896)
    assert first.size_after == Size(140, 64 * 5 * 27, 560)
    assert last.size_after == Size(5 * 4 * 4 + 4, 64 * 5 * 4 * 4, 4 * 84)


def test_a_free_size_counts_as_it_was_at_capture() -> None:
    example = (torch.randn(2, 3, 8, 8),)
    free = torch.export.Dim.DYNAMIC
    graph = capture(randomise(nn.Conv2d(3, 8, 3)), example, ({0: free, 2: free},))
    assert compact(graph, example).before.macs == 2 * 36 * 8 * 27


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [2, 4, 16])
def test_what_is_left_of_grouped_convolutions_is_counted_as_it_is(groups: int, transposed: bool) -> None:
    """Channels go on both sides of a group, of which only one is an axis of the weight for all channels."""
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        kind(16, 32, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(32, 4, 1),
    ).eval()
    x = torch.randn(1, 3, 6, 6)
    result = reconvene.prune(model, (x,), sparsity=0.5)
    with FlopCounterMode(display=False) as counted:
        result.module(x)
    assert result.report.after.macs == counted.get_total_flops() // 2
    assert groups > 4 or result.report.after.macs < 0.6 * result.report.before.macs
    assert sum(layer.size_after.macs for layer in result.report.layers) == result.report.after.macs
    assert sum(layer.size_after.parameters for layer in result.report.layers) == result.report.after.parameters


class Sequences(nn.Module):
    """A recurrent layer and what reads it."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(16, 32, batch_first=True, **options)
        width = int(options.get("proj_size", 32)) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x)[0])
        return y


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTMCell(16, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layer(x)[0])
        return y


@pytest.mark.parametrize(
    ("model", "shape", "times"),
    [
        (Sequences("LSTM"), (1, 5, 16), 5),
        (Sequences("GRU", bidirectional=True, num_layers=2), (2, 5, 16), 10),
        (Sequences("LSTM", proj_size=8), (1, 7, 16), 7),
        (Sequences("RNN", nonlinearity="relu"), (1, 3, 16), 3),
        (Cell(), (3, 16), 3),
    ],
)
def test_recurrent_layers_count_their_matrices_in_every_step(
    model: nn.Module, shape: tuple[int, ...], times: int
) -> None:
    def matrices(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 2)

    result = reconvene.prune(model.eval(), (torch.randn(shape),), sparsity=0.5)
    assert result.report.before.macs == times * matrices(model)
    assert result.report.after.macs == times * matrices(result.module) < result.report.before.macs
