"""Constants of dead channels: folded into a bias, carried by one channel, known through a padded plane."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import dependency_view
from reconvene.passes.propagation import propagate_constants

from ..support.models import (
    assert_exact,
    assert_same_outputs,
    channel_masks,
    fresh_like,
    masked_copy,
    randomise,
    view_of,
    widths,
)

IMAGE = (torch.zeros(2, 3, 8, 8),)


class Chain(nn.Module):
    """Convolution, activation, convolution."""

    def __init__(self, activation: nn.Module, padding: int | str, bias: bool = True) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=padding, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(x)))


def drop(count: int) -> Tensor:
    """A mask without the first `count` of eight channels."""
    return torch.arange(8) >= count


def test_without_padding_constants_fold_into_the_bias() -> None:
    result = assert_exact(randomise(Chain(nn.Sigmoid(), 0)), IMAGE, {"first.weight": drop(5)})
    assert widths(result)["first"] == 3


def test_a_bias_is_made_when_there_is_none() -> None:
    result = assert_exact(randomise(Chain(nn.Sigmoid(), 0, bias=False)), IMAGE, {"first.weight": drop(5)})
    parameters = dict(result.module.named_parameters())
    assert parameters["last.bias"].shape == (4,)
    assert isinstance(parameters["last.bias"], nn.Parameter)


def test_with_padding_one_channel_carries_all() -> None:
    result = assert_exact(randomise(Chain(nn.Sigmoid(), 1)), IMAGE, {"first.weight": drop(5)})
    assert widths(result)["first"] == 4


def test_zero_constants_need_no_carrier() -> None:
    masks = {"first.weight": drop(5), "first.bias": drop(5)}
    assert widths(assert_exact(randomise(Chain(nn.ReLU(), 1)), IMAGE, masks))["first"] == 3


def test_everything_constant_leaves_a_constant_model() -> None:
    model = randomise(Chain(nn.Sigmoid(), 0))
    with torch.no_grad():
        model.first.weight.zero_()
    result = assert_exact(model, IMAGE)
    assert widths(result)["first"] == 1


def test_everything_constant_before_a_padded_layer() -> None:
    model = randomise(Chain(nn.Sigmoid(), 1))
    with torch.no_grad():
        model.first.weight.zero_()
    assert widths(assert_exact(model, IMAGE))["first"] == 1


def test_a_live_constant_that_is_weak_does_not_carry_a_strong_one() -> None:
    """The weak one is a difference of large numbers: its error, relative to it, would be carried along."""

    class Residue(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
            self.last, self.side = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(1, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.first(x))
            return self.last(y) + self.side(y[:, :1] * x[:, :1])

    model = randomise(Residue()).float()
    with torch.no_grad():
        model.norm.running_mean[0], model.norm.running_var[0], model.norm.weight[0] = 1.0, 1.0, 1.0
        model.norm.bias[0] = 1.0 / (1.0 + 1e-5) ** 0.5 + 1e-6
        model.norm.bias[1:4] += 5.0
        model.last.weight.mul_(10)
    example = (torch.randn(2, 3, 8, 8),)
    masks = {"first.weight": drop(4)}
    result = compact(capture(model, example), example, masks)
    unseen = fresh_like(example, 3)
    expected = masked_copy(model, masks)(*unseen)
    with torch.no_grad():
        found = result.module(*(value.float() for value in unseen))
    assert_same_outputs(expected.detach(), found, 1e-5)


def test_constants_of_a_sum_are_summed_over_branches() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(self.left(x).exp() + self.right(x).cos() * 0.5))

    masks = {"left.weight": drop(4), "right.weight": drop(6)}
    result = assert_exact(randomise(Sum()), IMAGE, masks)
    assert widths(result)["left"] == widths(result)["right"] == 5


@pytest.mark.parametrize(
    ("padding", "kernel", "pads"),
    [
        ("valid", (3, 3), False),
        ("same", (3, 3), True),
        ("same", (1, 3), True),
        ("same", (2, 1), True),
        ("same", (1, 1), False),
        (0, (3, 3), False),
        (1, (3, 3), True),
        ((0, 1), (1, 3), True),
        ((1, 0), (3, 1), True),
        ((0, 0), (3, 3), False),
    ],
    ids=str,
)
def test_one_channel_carries_constants_exactly_where_a_layer_pads(
    padding: int | str | tuple[int, int], kernel: tuple[int, int], pads: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, kernel, padding=padding))
    assert widths(assert_exact(randomise(model), IMAGE, {"0.weight": drop(5)}))["0"] == (4 if pads else 3)


@pytest.mark.parametrize("margin", [(1, 1, 1, 1), (0, 0, 2, 0)])
def test_a_padded_plane_is_carried_into_a_layer_without_padding_of_its_own(margin: tuple[int, ...]) -> None:
    class Framed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.pad(self.first(x).sigmoid(), margin))

    result = assert_exact(randomise(Framed()), IMAGE, {"first.weight": drop(5)})
    assert widths(result)["first"] == 4, "ones with a border of zeros are no number that a bias could take"


def test_a_plane_stays_a_plane_at_another_resolution() -> None:
    model = randomise(Chain(nn.Softplus(), 1))
    free = torch.export.Dim.DYNAMIC
    double = model.double()
    example = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    result = compact(capture(double, example, ({2: free, 3: free},)), example, {"first.weight": drop(5)})
    unseen = (torch.randn(2, 3, 13, 9, dtype=torch.float64),)
    with torch.no_grad():
        assert_same_outputs(masked_copy(double, {"first.weight": drop(5)[:, None, None, None].expand(8, 3, 3, 3)})(*unseen),
                            result.module(*unseen))  # fmt: skip
    assert widths(result)["first"] == 4


def test_parts_of_a_padded_plane_are_not_mistaken_for_each_other() -> None:
    class Focus(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(32, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = F.pad(self.first(x), (1, 1, 1, 1))
            parts = [y[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
            return self.last(torch.cat(parts, 1))

    assert_exact(randomise(Focus()), IMAGE, {"first.weight": drop(5)})


def test_padding_in_channels_and_image_at_once() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            ones = torch.ones(2, 4, 8, 8, dtype=x.dtype)
            return self.last(F.pad(ones, (1, 1, 1, 1, 2, 2))) + x.mean()

    assert_exact(randomise(Padded()), IMAGE)


def test_constants_that_differ_within_an_image_are_not_constants_of_the_channel() -> None:
    class Positions(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1), nn.LazyConv2d(4, 3, padding=1)
            self.place = nn.Parameter(torch.randn(1, 16, 8, 8))
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.inner(self.first(x) + self.place))

    for inner in (nn.PixelShuffle(2), nn.PixelUnshuffle(2), nn.AvgPool2d(2), nn.MaxPool2d(2), nn.Upsample(scale_factor=2),
                  nn.ZeroPad2d(1), nn.AdaptiveAvgPool2d(3), nn.InstanceNorm2d(16), nn.BatchNorm2d(16)):  # fmt: skip
        model = Positions(inner)
        model(*IMAGE)
        mask = torch.arange(16) >= 12
        assert_exact(randomise(model), IMAGE, {"first.weight": mask})
        assert_exact(randomise(model), IMAGE, {"first.weight": mask, "first.bias": mask})


def test_a_linear_layer_along_the_width_of_a_padded_image() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.along = nn.Conv2d(3, 8, 1), nn.Linear(10, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.along(F.pad(self.first(x).sum(1, keepdim=True) * 0 + 0.7, (1, 1)))

    assert_exact(randomise(Wide()), IMAGE)


def test_a_number_known_only_when_it_runs_is_no_constant() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).sigmoid() / x.shape[3])

    free = torch.export.Dim.DYNAMIC
    assert_exact(randomise(Sized()), IMAGE, {"first.weight": drop(5)}, dynamic_shapes=({2: free, 3: free},))


def test_an_overflowing_square_is_no_constant() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x)
            return self.last(1 / (1 + y * y))

    model = randomise(Square()).double()
    with torch.no_grad():
        model.first.bias[:3] = 1e200
    assert_exact(model, IMAGE, {"first.weight": drop(3)})


def test_a_compacted_model_can_be_compacted_again() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(12, 4, 1, bias=False)
            self.norm = nn.BatchNorm2d(16)

        def forward(self, x: Tensor) -> Tensor:
            left, right = self.norm(self.first(x)).sigmoid().chunk(2, 1)
            return self.last(torch.cat([left * right, right[:, ::2]], 1))

    model = randomise(Parts())
    first = assert_exact(model, IMAGE, "M1", share=0.25)
    example = (torch.randn(2, 3, 8, 8, dtype=torch.float64),)
    second = compact(first.module, example)
    assert second.after == first.after
    third = compact(second.module, example, channel_masks(dependency_view(canonicalize(second.module)), "M2"))
    assert third.after.parameters < first.after.parameters


class Cast(nn.Module):
    """Features of which some are one half, a third or a hundred thousand, whatever comes in; and three whole ones."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.kind = kind
        randomise(self)
        with torch.no_grad():
            self.first.weight[:6] = 0
            self.first.bias[:6] = torch.tensor([0.5, 1 / 3, 1e5, 0.0, 1.0, -2.0])
            self.first.weight[6:] *= 4

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).to(self.kind).to(x.dtype)).relu())


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.bool])
def test_constants_are_what_a_cast_makes_of_them(kind: torch.dtype) -> None:
    assert_exact(Cast(kind), (torch.zeros(5, 4),))


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (torch.float16, [1, 1, 0, 1, 1, 1, 0, 0]),
        (torch.bfloat16, [1, 1, 1, 1, 1, 1, 0, 0]),
        (torch.int8, [1, 1, 0, 1, 1, 1, 0, 0]),
    ],
    ids=str,
)
def test_a_number_that_a_type_cannot_hold_is_no_constant_of_it(kind: torch.dtype, known: list[int]) -> None:
    view = view_of(Cast(kind), (torch.randn(5, 4),))
    node = next(
        node for node in view.module.graph.nodes if node.op == "call_function" and node.meta["val"].dtype is kind
    )
    assert propagate_constants(view.module, view.operations)[node].known.reshape(-1).tolist() == [
        bool(k) for k in known
    ]


def test_a_padded_plane_is_a_plane_when_it_is_enlarged() -> None:
    class Enlarged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.interpolate(F.pad(self.first(x).sigmoid(), (1, 1, 1, 1)), scale_factor=2.0))

    assert widths(assert_exact(randomise(Enlarged()), IMAGE, {"first.weight": drop(5)}))["first"] == 4
