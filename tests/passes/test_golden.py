"""Small graphs before and after, in full: what is cut, what is written out anew, and that nothing else changes."""

from __future__ import annotations

import textwrap

import torch
from torch import Tensor, nn

from ..support.graph_text import graph_text
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
    return graph_text(exactness.graph), graph_text(exactness.check(wide).module)


def _spread(parameter: Tensor, mask: Tensor) -> Tensor:
    return mask.reshape(-1, *(1,) * (parameter.dim() - 1)).expand(parameter.shape)


def lines(text: str) -> str:
    """A text of the test's without the indentation."""
    return textwrap.dedent(text).strip()


def test_without_padding_the_constants_go_into_a_new_bias() -> None:
    masks = {"0.weight": keep(8, 1, 4, 5)}
    before, after = texts(chain(nn.Sigmoid(), 0), masks)
    assert before == lines(
        """
        _0_weight = 0.weight 8x3x1x1
        _0_bias = 0.bias 8
        _2_weight = 2.weight 2x8x3x3
        input_1 = input 2x3x8x8
        conv2d = aten.conv2d(input_1, _0_weight, _0_bias) 2x8x8x8
        sigmoid = aten.sigmoid(conv2d) 2x8x8x8
        conv2d_1 = aten.conv2d(sigmoid, _2_weight) 2x2x6x6
        return conv2d_1
        """
    )
    assert after == lines(
        """
        _0_weight = 0.weight 5x3x1x1
        _0_bias = 0.bias 5
        _2_weight = 2.weight 2x5x3x3
        input_1 = input 2x3x8x8
        conv2d = aten.conv2d(input_1, _0_weight, _0_bias) 2x5x8x8
        sigmoid = aten.sigmoid(conv2d) 2x5x8x8
        _2_bias = 2.bias 2
        conv2d_1 = aten.conv2d(sigmoid, _2_weight, _2_bias) 2x2x6x6
        return conv2d_1
        """
    )


def test_with_padding_one_channel_stays_to_carry_the_constants() -> None:
    masks = {"0.weight": keep(8, 1, 4, 5)}
    _, after = texts(chain(nn.Sigmoid(), 1), masks)
    assert after == lines(
        """
        _0_weight = 0.weight 6x3x1x1
        _0_bias = 0.bias 6
        _2_weight = 2.weight 2x6x3x3
        input_1 = input 2x3x8x8
        conv2d = aten.conv2d(input_1, _0_weight, _0_bias) 2x6x8x8
        sigmoid = aten.sigmoid(conv2d) 2x6x8x8
        conv2d_1 = aten.conv2d(sigmoid, _2_weight, None, [1, 1], [1, 1]) 2x2x8x8
        return conv2d_1
        """
    )


def test_a_concatenation_is_cut_in_both_operands() -> None:
    masks = {
        "left.weight": keep(4, 0),
        "left.bias": keep(4, 0),
        "right.weight": keep(6, 2, 3),
        "right.bias": keep(6, 2, 3),
    }
    _, after = texts(Cat(), masks)
    assert after == lines(
        """
        left_weight = left.weight 3x3x1x1
        left_bias = left.bias 3
        right_weight = right.weight 4x3x1x1
        right_bias = right.bias 4
        last_weight = last.weight 2x7x1x1
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, left_weight, left_bias) 2x3x8x8
        relu = aten.relu(conv2d) 2x3x8x8
        conv2d_1 = aten.conv2d(x, right_weight, right_bias) 2x4x8x8
        relu_1 = aten.relu(conv2d_1) 2x4x8x8
        cat = aten.cat([relu, relu_1], 1) 2x7x8x8
        conv2d_2 = aten.conv2d(cat, last_weight) 2x2x8x8
        return conv2d_2
        """
    )


def test_a_size_written_out_in_a_reshape_is_rewritten() -> None:
    masks = {"conv.weight": keep(8, 0, 7)}
    _, after = texts(Reshape(), masks)
    assert after == lines(
        """
        conv_weight = conv.weight 6x3x8x8
        conv_bias = conv.bias 6
        head_weight = head.weight 3x6
        head_bias = head.bias 3
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, conv_weight, conv_bias) 2x6x1x1
        relu = aten.relu(conv2d) 2x6x1x1
        reshape = aten.reshape(relu, [2, 6]) 2x6
        linear = aten.linear(reshape, head_weight, head_bias) 2x3
        return linear
        """
    )


def test_sizes_of_a_split_are_rewritten() -> None:
    masks = {"conv.weight": keep(10, 0, 8, 9), "conv.bias": keep(10, 0, 8, 9)}
    before, after = texts(Split(), masks)
    assert before == lines(
        """
        conv_weight = conv.weight 10x3x1x1
        conv_bias = conv.bias 10
        left_weight = left.weight 2x4x1x1
        left_bias = left.bias 2
        right_weight = right.weight 2x6x1x1
        right_bias = right.bias 2
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, conv_weight, conv_bias) 2x10x8x8
        relu = aten.relu(conv2d) 2x10x8x8
        split_with_sizes = aten.split_with_sizes(relu, [4, 6], 1) 2x4x8x8 2x6x8x8
        getitem = getitem(split_with_sizes, 0) 2x4x8x8
        getitem_1 = getitem(split_with_sizes, 1) 2x6x8x8
        conv2d_1 = aten.conv2d(getitem, left_weight, left_bias) 2x2x8x8
        conv2d_2 = aten.conv2d(getitem_1, right_weight, right_bias) 2x2x8x8
        add = aten.add(conv2d_1, conv2d_2) 2x2x8x8
        return add
        """
    )
    assert after == lines(
        """
        conv_weight = conv.weight 7x3x1x1
        conv_bias = conv.bias 7
        left_weight = left.weight 2x3x1x1
        left_bias = left.bias 2
        right_weight = right.weight 2x4x1x1
        right_bias = right.bias 2
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, conv_weight, conv_bias) 2x7x8x8
        relu = aten.relu(conv2d) 2x7x8x8
        split_with_sizes = aten.split_with_sizes(relu, [3, 4], 1) 2x3x8x8 2x4x8x8
        getitem = getitem(split_with_sizes, 0) 2x3x8x8
        getitem_1 = getitem(split_with_sizes, 1) 2x4x8x8
        conv2d_1 = aten.conv2d(getitem, left_weight, left_bias) 2x2x8x8
        conv2d_2 = aten.conv2d(getitem_1, right_weight, right_bias) 2x2x8x8
        add = aten.add(conv2d_1, conv2d_2) 2x2x8x8
        return add
        """
    )


def test_a_channel_shuffle_becomes_one_selection_of_what_is_left() -> None:
    masks = {"conv.weight": keep(8, 0, 3), "conv.bias": keep(8, 0, 3)}
    before, after = texts(Shuffle(), masks)
    assert before == lines(
        """
        conv_weight = conv.weight 8x3x1x1
        conv_bias = conv.bias 8
        last_weight = last.weight 2x8x1x1
        last_bias = last.bias 2
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, conv_weight, conv_bias) 2x8x8x8
        relu = aten.relu(conv2d) 2x8x8x8
        view = aten.view(relu, [2, 2, 4, 8, 8]) 2x2x4x8x8
        transpose = aten.transpose(view, 1, 2) 2x4x2x8x8
        reshape = aten.reshape(transpose, [2, 8, 8, 8]) 2x8x8x8
        conv2d_1 = aten.conv2d(reshape, last_weight, last_bias) 2x2x8x8
        return conv2d_1
        """
    )
    assert after == lines(
        """
        conv_weight = conv.weight 6x3x1x1
        conv_bias = conv.bias 6
        last_weight = last.weight 2x6x1x1
        last_bias = last.bias 2
        x = input 2x3x8x8
        conv2d = aten.conv2d(x, conv_weight, conv_bias) 2x6x8x8
        relu = aten.relu(conv2d) 2x6x8x8
        index_select_default_index = index_select_default_index 6
        index_select_default = aten.index_select(relu, 1, index_select_default_index) 2x6x8x8
        conv2d_1 = aten.conv2d(index_select_default, last_weight, last_bias) 2x2x8x8
        return conv2d_1
        """
    )
