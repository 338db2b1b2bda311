"""Weights as structures see them: filters first, however they are stored, and which layers come first and last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.structures import LayerShape
from reconvene.passes.weight_views import WeightView, weight_views


def views(model: nn.Module, *inputs: Any) -> dict[str, WeightView]:
    module = canonicalize(capture(model.eval(), inputs))
    found = {view.name: view for view in weight_views(module)}
    for view in found.values():
        weight = module.get_parameter(view.name).detach()
        seen = view.seen(weight)
        assert LayerShape.of(seen, view.shape.groups) == view.shape
        assert torch.equal(view.stored(seen), weight)
    return found


class Kinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2, groups=3)
        self.line = nn.Conv1d(6, 4, 5)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.grouped(self.depthwise(self.stem(x))))
        return self.head(self.line(y.flatten(2)).mean(-1))


def test_convolutions_of_every_kind_and_linear_layers() -> None:
    found = views(Kinds(), torch.randn(1, 3, 4, 4))
    assert {name: view.shape for name, view in found.items()} == {
        "stem.weight": LayerShape(8, 3, (3, 3)),
        "depthwise.weight": LayerShape(8, 1, (3, 3), 8),
        "grouped.weight": LayerShape(12, 2, (3, 3), 4),
        "up.weight": LayerShape(6, 4, (2, 2), 3),
        "line.weight": LayerShape(4, 6, (5,)),
        "head.weight": LayerShape(2, 4),
    }
    assert [name for name, view in found.items() if view.first] == ["stem.weight"]
    assert [name for name, view in found.items() if view.last] == ["head.weight"]
    assert [name for name, view in found.items() if view.depthwise] == ["depthwise.weight"]
    assert [name for name, view in found.items() if not view.convolution] == ["head.weight"]


def test_a_filter_of_a_transposed_convolution_is_seen_with_what_it_reads() -> None:
    """Zeroing filter 3 as it is seen makes channel 3 of the result constant."""
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False))
    view = views(model, torch.randn(1, 4, 3, 3))["0.weight"]
    weight = model.get_parameter("0.weight").detach()
    seen = view.seen(weight).clone()
    seen[3] = 0
    result = F.conv_transpose2d(torch.randn(1, 4, 3, 3), view.stored(seen), groups=2)
    assert [bool((result[0, channel] == 0).all()) for channel in range(6)] == [False] * 3 + [True] + [False] * 2


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.GRU(5, 4, num_layers=2, batch_first=True), [(12, 5), (12, 4), (12, 4), (12, 4)]),
        (nn.LSTM(5, 4, bidirectional=True, bias=False), [(16, 5), (16, 4), (16, 5), (16, 4)]),
        (nn.LSTM(5, 4, proj_size=2), [(16, 5), (16, 2), (2, 4)]),
        (nn.RNN(5, 4), [(4, 5), (4, 4)]),
    ],
)
def test_matrices_of_recurrent_layers(layer: nn.Module, expected: list[tuple[int, int]]) -> None:
    found = views(layer, torch.randn(2, 3, 5))
    assert [(view.shape.filters, view.shape.channels) for view in found.values()] == expected
    assert all(view.layer is None and not view.convolution for view in found.values())


def test_matrices_of_cells() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = self.cell(x[0])
            return self.cell(x[1], state)

    assert [str(view.shape) for view in views(Steps(), torch.randn(2, 1, 5)).values()] == [
        str(LayerShape(12, 5)), str(LayerShape(12, 4)),
    ]  # fmt: skip


def test_a_weight_that_two_calls_read_differently_is_told_of() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv_transpose2d(F.conv2d(x, self.weight), self.weight)

    assert "differently" in views(Tied(), torch.randn(1, 4, 5, 5))["weight"].unlike


def test_branches_have_several_first_and_last_layers() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.middle = nn.Conv2d(4, 4, 1)
            self.left, self.right = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.middle(self.one(x) + self.two(x))
            return self.left(y), self.right(y)

    found = views(Branches(), torch.randn(1, 3, 2, 2)).values()
    assert {view.name[0] for view in found if view.first} == {"o", "t"}
    assert {view.name[0] for view in found if view.last} == {"l", "r"}
