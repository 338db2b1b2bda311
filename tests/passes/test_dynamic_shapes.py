"""Sizes left open at capture stay open: compacted at one size, exact at another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import dependency_view

from ..support.models import assert_exact, assert_same_outputs, channel_masks, masked_copy, randomise, widths

FREE = torch.export.Dim.DYNAMIC
DOUBLE = {"dtype": torch.float64}


class Encoder(nn.Module):
    """Padding, strides, shuffles, gates and resampling, all by sizes that are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.grouped, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.first(x)).sigmoid()
        n, c, h, w = y.shape
        z = self.grouped(y).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        z = F.avg_pool2d(F.pad(z, (0, w % 2, 0, h % 2)), 2)
        z = F.interpolate(z, size=(h, w), mode="bilinear")
        return self.head(self.last(torch.cat([y, z.relu()], 1)).flatten(2).unflatten(2, (h, w)).relu())


class Tokens(nn.Module):
    """Attention over a number of tokens that is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        n, length, width = t.shape
        q, k, v = (
            layer(t).reshape(n, length, 4, width // 4).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        t = t + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, length, width)
        return self.head((t + self.down(F.gelu(self.up(t)))).mean(1))


def check(model: nn.Module, captured: tuple[int, ...], kind: str, *later: tuple[int, ...]) -> Any:
    """Captures and compacts at one size, compares at others."""
    model = randomise(model).double()
    example = (torch.randn(captured, **DOUBLE),)
    graph = capture(model, example, ({axis: FREE for axis in (0, 2, 3)},))
    masks = channel_masks(dependency_view(canonicalize(graph)), kind)
    result = compact(graph, example, masks)
    result.module.graph.lint()
    for shape in later:
        unseen = torch.randn(shape, **DOUBLE)
        with torch.no_grad():
            assert_same_outputs(masked_copy(model, masks)(unseen), result.module(unseen))
    return result


@pytest.mark.parametrize("kind", ["M1", "M2"])
def test_convolutions_captured_at_64_are_exact_at_96(kind: str) -> None:
    result = check(Encoder(), (2, 3, 64, 64), kind, (3, 3, 96, 96), (1, 3, 91, 75))
    assert widths(result)["first"] < 8
    assert widths(result)["last"] < 8


@pytest.mark.parametrize("kind", ["M1", "M2"])
def test_another_number_of_tokens(kind: str) -> None:
    result = check(Tokens(), (2, 3, 32, 32), kind, (5, 3, 64, 48))
    assert widths(result)["up"] == 8
    assert widths(result)["value"] == 4


def test_sizes_that_are_not_known_make_no_channels() -> None:
    example = (torch.randn(2, 3, 16, 16),)
    graph = capture(Encoder(), example, ({axis: FREE for axis in (0, 2, 3)},))
    assert max(dependency_view(canonicalize(graph)).axes.sizes) <= 256


def test_sizes_that_are_made_on_the_spot() -> None:
    class Extended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(12, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            plane = y.new_ones(y.shape[0], 4, y.shape[2], y.shape[3])
            return self.last(
                torch.cat([y, plane], 1)
                * torch.ones(1, 12, x.shape[2], 1, dtype=x.dtype).expand(-1, -1, -1, x.shape[3])
            )

    assert widths(check(Extended(), (2, 3, 16, 16), "M2", (1, 3, 24, 20)))["first"] == 4


def test_slices_up_to_a_size_that_is_not_known() -> None:
    class Cropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(11, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            return self.last(torch.cat([y, x[:, :, : y.shape[2], : y.shape[3]]], 1)[:, :, : x.shape[2] // 2])

    assert widths(check(Cropped(), (2, 3, 16, 16), "M1", (1, 3, 24, 20)))["first"] == 4


class JoinedBatches(nn.Module):
    """Two layers whose results are joined and taken apart again along the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.after = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(x).relu(), self.right(x).relu()], 0)
        first, second = both.chunk(2, 0)
        return self.after(first + second)


class Picked(nn.Module):
    """Rows of a batch of any size, by numbers that the model keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 4)
        self.register_buffer("rows", torch.tensor([1, 0, 1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).index_select(0, self.rows))


@pytest.mark.parametrize("kind", ["M1", "M2"])
def test_rows_of_a_dynamic_batch_are_picked_and_channels_go(kind: str) -> None:
    result = check(Picked(), (4, 5), kind, (2, 5), (7, 5))
    assert result.module.first.weight.shape == (4, 5)


def test_operands_joined_along_a_dynamic_batch_lose_their_channels_together() -> None:
    for kind, left in (("M1", 8), ("M2", 4)):  # Biases that stay differ, so that a channel is no constant.
        result = assert_exact(JoinedBatches(), (torch.randn(3, 6),), kind, dynamic_shapes=({0: FREE},))
        assert widths(result)["left"] == widths(result)["right"] == left


@pytest.mark.parametrize(("sides", "pooled", "left"), [((0, 1, 0, 1), (3, 2), 4), ((3, 0, 0, 0), (3, 2), 8)])
def test_a_maximum_does_not_see_the_frame_of_an_image_of_dynamic_size(
    sides: tuple[int, ...], pooled: tuple[int, int], left: int
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.ConstantPad2d(sides, -1.0),
        nn.MaxPool2d(*pooled),
        nn.Conv2d(8, 4, 1),
    )
    free = ({0: FREE, 2: FREE, 3: FREE},)
    result = assert_exact(randomise(model), (torch.randn(2, 3, 8, 9),), "M2", dynamic_shapes=free)
    assert widths(result)["0"] == left
