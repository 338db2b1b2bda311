"""Operators that write in place: exact whether they can be made pure or not, and the model itself stays as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..support.models import Exactness, assert_exact, randomise, widths

IMAGE = (torch.zeros(2, 3, 8, 8),)


class Between(nn.Module):
    """A convolution, something in place, a convolution."""

    def __init__(self, inner: Callable[[Tensor], Tensor], reads: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(reads, 4, 3, padding=1)
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(self.first(x)))


def relu_twice(x: Tensor) -> Tensor:
    return F.relu(x, inplace=True) + F.hardsigmoid(x, inplace=True)


def read_before(x: Tensor) -> Tensor:
    before = x * 2
    x.relu_()
    return before + x


def chain(x: Tensor) -> Tensor:
    return x.mul_(0.5).add_(0.25).clamp_(-1, 1)


@pytest.mark.parametrize("inner", [relu_twice, read_before, chain], ids=lambda f: f.__name__)
def test_pure_forms_prune(inner: Callable[[Tensor], Tensor]) -> None:
    for kind in ("M1", "M2"):
        assert widths(assert_exact(randomise(Between(inner)), IMAGE, kind))["first"] < 8


def view_written(x: Tensor) -> Tensor:
    x[:, 2:5].relu_()
    return x


def view_read_later(x: Tensor) -> Tensor:
    part = x[:, :, 1:]
    x.sigmoid_()
    return F.pad(part, (0, 0, 1, 0)) + x


def flat_written(x: Tensor) -> Tensor:
    x.flatten(1).mul_(0.3)
    return x


def half_written(x: Tensor) -> Tensor:
    left, right = x[:, :4], x[:, 4:]
    left.add_(right)
    return x


def tensor_split_written(x: Tensor) -> Tensor:
    x.tensor_split(2, 1)[0].neg_()
    return x


def moved_written(x: Tensor) -> Tensor:
    x.moveaxis(1, 3).mul_(2.0)
    return x


def broadcast_read(x: Tensor) -> Tensor:
    same = torch.broadcast_to(x, x.shape)
    x.tanh_()
    return same


def dropped_out_read(x: Tensor) -> Tensor:
    same = F.dropout(x, 0.5, training=False)
    x.tanh_()
    return same


def assigned(x: Tensor) -> Tensor:
    x[:, 0] = 0.5
    x[:, :, 0] = x[:, :, 1]
    return x


def filled(x: Tensor) -> Tensor:
    buffer = torch.zeros(2, 8, 8, 8, dtype=x.dtype)
    buffer[:, :, 1:7, 1:7] = x[:, :, 1:7, 1:7]
    return buffer


def same_twice(x: Tensor) -> Tensor:
    return x.add_(x).relu_()


def view_of_the_result(x: Tensor) -> Tensor:
    y = x.relu_()
    part = y[:, :4]
    part.mul_(3.0)
    return y


@pytest.mark.parametrize(
    "inner",
    [
        view_written, view_read_later, flat_written, half_written, tensor_split_written, moved_written, broadcast_read,
        dropped_out_read, assigned, filled, same_twice, view_of_the_result,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_writing_behind_another_reader_is_exact(inner: Callable[[Tensor], Tensor]) -> None:
    exactness = Exactness(randomise(Between(inner)), IMAGE)
    for kind in ("M1", "M2"):
        exactness.check(kind)
        exactness.check({"first.weight": torch.arange(8) % 2 == 1, "first.bias": torch.arange(8) % 2 == 1})


def test_a_counter_in_a_buffer_is_not_advanced_by_the_check() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1.0
            return self.last(self.first(x).relu()) * self.calls

    exactness = Exactness(randomise(Counting()), IMAGE)
    result = exactness.check("M2")
    assert widths(result)["first"] == 4
    assert exactness.graph.calls == 0


def test_what_is_written_through_a_view_is_no_longer_the_constant_it_was_made_as() -> None:
    class Raised(nn.Module):
        """Nothing but zeros, of which some become ones behind the back of who made them."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            y[:, 2:5].cos_()
            return self.last(self.second(y).relu())

    model = randomise(Raised())
    with torch.no_grad():
        model.first.weight.zero_()
        model.first.bias.zero_()
    assert widths(Exactness(model, IMAGE).check())["first"] == 8


def test_channels_beside_those_that_are_written_stay_where_they_are() -> None:
    """Without one of them, the others would be a copy, and what is written to a copy is lost."""

    def every_second_written(x: Tensor) -> Tensor:
        x[:, ::2].cos_()
        return x

    read = torch.arange(8) != 1
    masks = {"last.weight": read[None, :, None, None].expand(4, 8, 3, 3)}
    assert widths(Exactness(randomise(Between(every_second_written)), IMAGE).check(masks))["first"] == 8


def test_a_table_that_is_made_and_written_in_each_call_is_not_what_it_was_made_as() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.zeros(8, 1, 1, dtype=x.dtype)
            gate[2:5].add_(1.0)
            return self.last(self.second(self.first(x) * gate).relu())

    assert widths(Exactness(randomise(Gated()), IMAGE).check())["second"] == 8


def test_a_weight_that_is_computed_and_then_written_is_what_was_written() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.last.weight * 2.0
            weight[1:3].mul_(3.0)
            return F.conv2d(self.first(x), weight, self.last.bias)

    exactness = Exactness(randomise(Scaled()), IMAGE)
    result = exactness.check({"first.weight": torch.arange(8)[:, None, None, None].expand(8, 3, 1, 1) > 3})
    with torch.no_grad():
        first = result.module(*exactness.example)
        assert torch.equal(result.module(*exactness.example), first), "it is written in every call, not more in each"
