"""What goes in and comes out of a model keeps its form, whatever is removed inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ..support.models import assert_exact, randomise, widths

IMAGE = torch.zeros(2, 3, 8, 8)


class Two(nn.Module):
    """Two convolutions; `finish` makes the output of the input, the features and the result."""

    def __init__(self, finish: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3)
        self.scale = nn.Parameter(torch.randn(5))
        self.finish = finish

    def forward(self, x: Tensor) -> Any:
        features = torch.relu(self.first(x))
        return self.finish(self, x, features, self.last(features))


@pytest.mark.parametrize(
    "finish",
    [
        lambda m, x, f, y: (y, y.mean()),
        lambda m, x, f, y: {"logits": y, "pooled": [y.sum(), y.mean((2, 3))]},
        lambda m, x, f, y: (x, y),
        lambda m, x, f, y: (y, m.scale),
        lambda m, x, f, y: (y, None, 3),
        lambda m, x, f, y: (y, y),
        lambda m, x, f, y: (y, m.last.bias),
    ],
    ids=["tuple", "dict", "input", "parameter", "plain values", "twice", "parameter of a layer"],
)
def test_structure_of_the_output_stays(finish: Any) -> None:
    for kind in ("M1", "M2"):
        assert widths(assert_exact(randomise(Two(finish)), (IMAGE,), kind))["first"] < 8


def test_features_that_are_an_output_stay_whole() -> None:
    result = assert_exact(randomise(Two(lambda m, x, f, y: (f, y))), (IMAGE,), "M2")
    assert widths(result)["first"] == 8
    assert [group.reasons for group in result.groups if group.name == "last.weight"] == [()]


def test_a_model_that_gives_its_input_back_is_left_as_it_is() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    result = assert_exact(Nothing(), (IMAGE,))
    assert result.groups == ()


def test_inputs_that_nobody_reads_stay_inputs() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return self.last(self.first(x).sigmoid())

    assert widths(assert_exact(randomise(Unused()), (IMAGE, torch.zeros(3)), "M1"))["first"] == 5


def test_inputs_may_be_nested() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: dict[str, Tensor], extra: list[Tensor]) -> Tensor:
            return self.last(self.first(x["image"]).relu() * extra[0]) + extra[1]

    inputs = ({"image": IMAGE}, [torch.zeros(1), torch.zeros(4, 1, 1)])
    assert widths(assert_exact(randomise(Nested()), inputs, "M2"))["first"] == 4


def test_whole_numbers_go_in() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.hidden, self.head = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, words: Tensor, weight: Tensor) -> Tensor:
            return self.head(self.hidden(self.table(words)).relu()) * weight[..., None]

    inputs = (torch.randint(0, 9, (2, 5)), torch.randint(0, 2, (2, 5)))
    assert widths(assert_exact(randomise(Words()), inputs, "M2"))["hidden"] == 4


def test_one_input_given_to_two_branches() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.other, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.last(self.first(x).relu() * self.other(y).sigmoid())

    result = assert_exact(randomise(Branches()), (IMAGE, IMAGE), "M2")
    assert widths(result)["first"] == widths(result)["other"] == 4


def test_channels_of_an_input_are_never_removed() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x * self.first(x).sigmoid())

    result = assert_exact(randomise(Gate()), (torch.zeros(2, 8, 4, 4),), {"first.weight": torch.arange(8) > 3})
    assert widths(result)["first"] == 8
    assert result.groups[0].reasons == ("the model's input keeps its shape",)


def test_a_layer_that_nothing_reads_goes_without_a_word() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.unread, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            self.unread(y)
            return self.last(y)

    model = randomise(Dead())
    result = assert_exact(model, (IMAGE,), {"unread.weight": torch.arange(8) > 3, "first.weight": torch.arange(8) > 2})
    assert "unread.weight" not in dict(result.module.named_parameters())


def test_a_branch_that_is_multiplied_by_zero_goes() -> None:
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.off, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
            self.scale = nn.Parameter(torch.zeros(8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).relu()
            return self.last(y + self.scale * self.off(y))

    model = Off()
    with torch.no_grad():
        model.scale[6] = 0.7
    result = assert_exact(model, (IMAGE,))
    weight = dict(result.module.named_parameters())["off.weight"]
    assert weight.shape[1] == 8
    assert result.after.parameters == result.before.parameters


def test_values_without_axes_pass() -> None:
    class Scalars(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.temperature = nn.Parameter(torch.tensor(0.7))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).relu() * self.temperature.exp()) / self.temperature

    assert widths(assert_exact(randomise(Scalars()), (IMAGE,), "M1"))["first"] == 4
