"""Channels and rows that are picked by position: what goes with them, and how what is left is picked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reconvene.passes.propagation import propagate_constants
from reconvene.passes.values import operator_name

from ..support.models import Exactness, assert_exact, randomise, view_of, widths

IMAGE = (torch.zeros(2, 3, 8, 8),)


class Picked(nn.Module):
    """Some of eight channels, in a fixed order, and all of them."""

    def __init__(self, positions: list[int]) -> None:
        super().__init__()
        self.first, self.all = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.some = nn.Conv2d(len(positions), 4, 1)
        self.register_buffer("positions", torch.tensor(positions))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.all(y) + self.some(y.index_select(1, self.positions))


@pytest.mark.parametrize(
    ("positions", "operator"),
    [
        ([0, 2, 5], "aten.index_select"),
        ([0, 1, 3], "aten.index_select"),
        ([3, 2, 1], "aten.index_select"),
        ([4, 4, 4], "aten.index_select"),
        ([2, 3, 4], "aten.slice"),
        ([0, 1, 2], "aten.slice"),
        ([4, 5, 6], "aten.slice"),
        ([5], "aten.slice"),
        ([0, 1, 2, 3, 4, 5, 6], None),
        ([0, 1, 2, 3, 4, 6, 5], "aten.index_select"),
    ],
    ids=str,
)
def test_what_is_left_is_picked_by_the_cheapest_call_that_gives_it(positions: list[int], operator: str | None) -> None:
    last = torch.arange(8) < 7
    masks = {"first.weight": last[:, None, None, None].expand(8, 3, 1, 1), "first.bias": last}
    result = assert_exact(randomise(Picked(positions)), IMAGE, masks)
    assert widths(result)["first"] == 7
    calls = [operator_name(node) for node in result.module.graph.nodes if node.op == "call_function"]
    assert [name for name in calls if name not in ("aten.conv2d", "aten.add")] == ([operator] if operator else [])


class Rows(nn.Module):
    """Features of a grid, picked by tensors of positions."""

    def __init__(self, pick: Callable[..., Tensor], **positions: Tensor) -> None:
        super().__init__()
        self.first, self.last, self.pick = nn.Linear(6, 8), nn.Linear(8, 4), pick
        for name, value in positions.items():
            self.register_buffer(name, value)
        self.names = list(positions)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pick(self.first(x).relu(), *(self.get_buffer(name) for name in self.names)))


SQUARE = torch.tensor([[0, 2, 1], [3, 0, 3]])


@pytest.mark.parametrize(
    ("pick", "positions"),
    [
        (lambda x, rows: x[rows], [SQUARE % 2]),
        (lambda x, rows: x[:, rows], [SQUARE]),
        (lambda x, rows: x[:, :, rows], [SQUARE]),
        (lambda x, rows: x[:, :, rows], [SQUARE[0]]),
        (lambda x, rows, columns: x[:, rows, columns], [SQUARE[:, :1], SQUARE[0]]),
        (lambda x, rows, columns: x[:, rows, columns], [SQUARE[0], SQUARE[:, :1]]),
        (lambda x, rows, columns: x[:, rows, columns], [SQUARE[0], SQUARE[1]]),
        (lambda x, images, rows: x[images, rows], [SQUARE % 2, SQUARE]),
    ],
)
def test_features_pass_where_rows_are_picked(pick: Callable[..., Tensor], positions: list[Tensor]) -> None:
    model = Rows(pick, **{f"places{number}": place for number, place in enumerate(positions)})
    exactness = Exactness(randomise(model), (torch.zeros(2, 4, 5, 6),))
    for kind in ("M1", "M2"):
        assert widths(exactness.check(kind))["first"] == 4


@pytest.mark.parametrize(
    "pick",
    [
        lambda x, order: x[:, :, :, order],
        lambda x, order: x.permute(0, 3, 1, 2)[:, order].permute(0, 2, 3, 1),
        lambda x, order: x.permute(3, 0, 1, 2)[order].permute(1, 2, 3, 0),
        lambda x, order: x[:, order % 4, :, order].permute(1, 2, 0)[:, :, None],
    ],
)
def test_features_that_are_picked_by_a_tensor_stay(pick: Callable[..., Tensor]) -> None:
    model = Rows(pick, order=torch.tensor([7, 0, 1, 2, 3, 4, 5, 6]))
    exactness = Exactness(randomise(model), (torch.zeros(2, 4, 5, 6),))
    gone = torch.arange(8) % 2 == 0
    unread = {"last.weight": ~gone[None].expand(4, 8)}
    for masks in ({"first.weight": ~gone[:, None].expand(8, 6), "first.bias": ~gone}, unread):
        assert widths(exactness.check(masks))["first"] == 8


def test_tensors_of_positions_with_a_gap_between_them_come_out_in_front() -> None:
    """So that an axis before the first of them is none of the first of the result."""
    model = Rows(lambda x, i: x.permute(3, 0, 1, 2)[:, i % 2, :, i % 5].sum(0), order=torch.arange(8))
    exactness = Exactness(randomise(model), (torch.zeros(2, 8, 5, 6),))
    view = view_of(exactness.model, exactness.example)
    (call,) = (node for node in view.module.graph.nodes if operator_name(node) == "aten.index")
    source = call.args[0]
    assert all(view.axes.of(call, 0) != view.axes.of(source, axis) for axis in range(4))


@pytest.mark.parametrize(
    ("mask", "known"),
    [
        (torch.tensor([True, False]), True),
        (torch.tensor([[True, False, True], [False, False, True]]), False),
        (torch.tensor([[[True] * 4, [False] * 4, [True] * 4]] * 2), False),
    ],
    ids=["of one axis", "of two axes", "of all axes"],
)
def test_a_mask_of_positions_stands_for_as_many_axes_as_it_has(mask: Tensor, known: bool) -> None:
    """Zeros that differ along a masked axis say nothing of what is picked."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", mask)
            self.register_buffer("scale", torch.tensor([1.0, 0.0, 2.0])[:, None].repeat(1, 4))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.scale)[self.mask]

    view = view_of(Masked(), (torch.randn(2, 3, 4),))
    (call,) = (node for node in view.module.graph.nodes if operator_name(node) == "aten.index")
    facts = propagate_constants(view.module, view.operations)[call]
    assert facts.known.any() == known
    assert not known or facts.known.reshape(-1).tolist() == [False, True, False]


def test_a_row_whose_number_may_vary_says_nothing_of_one_row() -> None:
    class Numbered(nn.Module):
        """Scaled by the row of a table that has the number of images; its second feature is zero in some rows only."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 3), nn.Linear(3, 4)
            self.register_buffer("table", torch.tensor([[1.0, 0.0, 4.0], [2.0, 0.0, 6.0], [3.0, 5.0, 7.0]]))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) * self.table[x.shape[0] - 1])

    free = ({0: torch.export.Dim("images", min=1, max=3)},)
    exactness = Exactness(randomise(Numbered()), (torch.zeros(2, 6),), free)
    result = exactness.check()
    assert widths(result)["first"] == 3
    three = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(result.module(three), exactness.model(three))
