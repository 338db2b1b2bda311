"""Small graphs before and after, in full: what is cut, what is written out anew, and that nothing else changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reconvene.passes.text import module_text

from ..support.golden import Golden
from ..support.models import Exactness, randomise

IMAGE = (torch.zeros(2, 3, 8, 8),)


class Cat(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(10, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.left(x).relu(), self.right(x).relu()], 1))


class Reshape(nn.Module):
    """A size written out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().reshape(2, 8))


class Split(nn.Module):
    """Two parts with readers of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.left, self.right = nn.Conv2d(3, 10, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv(x).relu().split([4, 6], 1)
        return self.left(left) + self.right(right)


class Shuffle(nn.Module):
    """A channel shuffle by view, transpose, reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        return self.last(y.view(2, 2, 4, 8, 8).transpose(1, 2).reshape(2, 8, 8, 8))


def chain(activation: nn.Module, padding: int) -> nn.Module:
    """Convolution, activation, convolution without a bias."""
    return nn.Sequential(nn.Conv2d(3, 8, 1), activation, nn.Conv2d(8, 2, 3, padding=padding, bias=False))


def keep(size: int, *dropped: int) -> Tensor:
    """A mask with one entry per output channel."""
    mask = torch.ones(size, dtype=torch.bool)
    mask[list(dropped)] = False
    return mask


def texts(model: nn.Module, masks: dict[str, Tensor]) -> tuple[str, str]:
    """The captured graph and the compacted one."""
    exactness = Exactness(randomise(model), IMAGE, "fixed")
    wide = {name: _spread(exactness.model.get_parameter(name), mask) for name, mask in masks.items()}
    return module_text(exactness.graph), module_text(exactness.check(wide).module)


def _spread(parameter: Tensor, mask: Tensor) -> Tensor:
    return mask.reshape(-1, *(1,) * (parameter.dim() - 1)).expand(parameter.shape)


def test_without_padding_the_constants_go_into_a_new_bias(golden: Golden) -> None:
    masks = {"0.weight": keep(8, 1, 4, 5)}
    before, after = texts(chain(nn.Sigmoid(), 0), masks)
    golden(before=before, after=after)


def test_with_padding_one_channel_stays_to_carry_the_constants(golden: Golden) -> None:
    masks = {"0.weight": keep(8, 1, 4, 5)}
    before, after = texts(chain(nn.Sigmoid(), 1), masks)
    golden(before=before, after=after)


def test_a_concatenation_is_cut_in_both_operands(golden: Golden) -> None:
    masks = {
        "left.weight": keep(4, 0),
        "left.bias": keep(4, 0),
        "right.weight": keep(6, 2, 3),
        "right.bias": keep(6, 2, 3),
    }
    before, after = texts(Cat(), masks)
    golden(before=before, after=after)


def test_a_size_written_out_in_a_reshape_is_rewritten(golden: Golden) -> None:
    masks = {"conv.weight": keep(8, 0, 7)}
    before, after = texts(Reshape(), masks)
    golden(before=before, after=after)


def test_sizes_of_a_split_are_rewritten(golden: Golden) -> None:
    masks = {"conv.weight": keep(10, 0, 8, 9), "conv.bias": keep(10, 0, 8, 9)}
    before, after = texts(Split(), masks)
    golden(before=before, after=after)


def test_a_channel_shuffle_becomes_one_selection_of_what_is_left(golden: Golden) -> None:
    masks = {"conv.weight": keep(8, 0, 3), "conv.bias": keep(8, 0, 3)}
    before, after = texts(Shuffle(), masks)
    golden(before=before, after=after)
