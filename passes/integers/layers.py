"""Convolutions and linear layers whose weights and inputs are quantised: products of codes, added in int32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .constants import Constants
from .operators import OPERATORS
from .scheme import DEQUANTIZE, PER_CHANNEL, Codes, codes_of_node

__all__ = ["Layer", "along", "layer_of"]

A = torch.ops.aten

CONVOLUTIONS = {A.conv1d.default: 1, A.conv1d.padding: 1, A.conv2d.default: 2, A.conv2d.padding: 2}
"""By operator, along how many axes its window moves."""
_PADDED_BY_NAME = (A.conv1d.padding, A.conv2d.padding)
_MOST = 2**31 - 1
"""The largest sum."""
_CODES = 255
"""By which a code is off its zero at most."""
_LEAST = -128
"""The least weight. Kernels add two products of an output in 16 bits: two of -128 by -128 do not fit, one and any other do."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer on codes.

    Attributes:
        source: the codes that it reads, `zero` of which stands for zero.
        weight: int8, by output channel; -128 at most once in each.
        bias: int32 by output channel, in steps of `scale`.
        scale: float64, what a sum is multiplied by to give the layer's value, by output channel.
        axis: along which the channels of the result lie.
        window: stride, padding and dilation of a convolution, and its groups; None for a linear layer.
        name: of the weight in the model; empty where it is computed.
    """

    source: fx.Node
    zero: int
    weight: Tensor
    bias: Tensor
    scale: Tensor
    axis: int
    window: tuple[list[int], list[int], list[int], int] | None
    name: str

    def emitted(self, at: fx.Node, emit: Callable[..., fx.Node], constants: Constants) -> fx.Node:
        """The node of its sums, right before `at`; those of a line are an image of height 1, ``(N, O, 1, L)``."""
        source, weight = self.source, self.weight
        if self.window is not None and weight.dim() == 3:
            batch, channels, length = (int(extent) for extent in source.meta["val"].shape)
            source, weight = emit(at, A.reshape.default, source, [batch, channels, 1, length]), weight.unsqueeze(2)
        operands = (source, constants.node(at, weight), constants.node(at, self.bias), self.zero)
        if self.window is None:
            return emit(at, OPERATORS.integer_linear.default, *operands)
        return emit(at, OPERATORS.integer_conv2d.default, *operands, *self.window)


def layer_of(node: fx.Node, constants: Constants, known: Callable[[Any], tuple[Codes, fx.Node] | None]) -> Layer | None:
    """The layer that `node` is; None where it is none, or its weights or inputs are not codes, or sums might not fit in int32.

    Args:
        known: gives the codes that a value is read from.
    """
    if node.target is A.linear.default:
        window = None
    elif node.target in CONVOLUTIONS:
        window = _window(node) if node.meta["val"].dim() == CONVOLUTIONS[node.target] + 2 else None
        if window is None:  # Without a batch there is no kernel.
            return None
    else:
        return None
    weights, source = _weights(node.args[1], constants), known(node.args[0])
    if weights is None or source is None:
        return None
    codes, read = source
    weight, steps = weights
    scale = steps.double() * codes.scale
    given = node.args[2] if len(node.args) > 2 else None
    offsets = torch.zeros(len(weight)) if given is None else constants.value(given)
    if offsets is None:
        return None
    bias = torch.round(offsets.double() / scale)
    most = bias.abs() + weight.double().flatten(1).abs().sum(1) * _CODES
    if not bool((most <= _MOST).all()):
        return None
    axis = 1 if window is not None else node.meta["val"].dim() - 1
    return Layer(read, codes.zero, weight, bias.to(torch.int32), scale, axis, window, _name(node.args[1]))


def _name(weight: Any) -> str:
    stored = weight.args[0]
    return str(stored.target) if stored.op == "get_attr" else ""


def _window(node: fx.Node) -> tuple[list[int], list[int], list[int], int] | None:
    given: Sequence[Any] = node.args
    defaults: Sequence[Any] = ([1], [0], [1], 1)
    stride, padding, dilation, groups = [*given[3:], *defaults[len(given[3:]) :]]
    window = given[1].meta["val"].shape[2:]
    stride, dilation = (along(value, len(window)) for value in (stride, dilation))
    if node.target in _PADDED_BY_NAME:
        steps = [step * (extent - 1) for step, extent in zip(dilation, window, strict=True)]
        if padding == "same" and any(step % 2 for step in steps):
            return None
        padding = [step // 2 if padding == "same" else 0 for step in steps]
    padding = along(padding, len(window))
    if len(window) == 1:  # A line is an image of height 1.
        stride, padding, dilation = [1, *stride], [0, *padding], [1, *dilation]
    return stride, padding, dilation, int(groups)


def along(value: Any, axes: int) -> list[int]:
    """A number for each axis, given as one for all, as a list of one, or as all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _weights(node: Any, constants: Constants) -> tuple[Tensor, Tensor] | None:
    """The codes of weights and the scale of each output channel; None where zero is not the code 0, or two products might
    not fit in 16 bits."""
    if not isinstance(node, fx.Node) or node.target not in (DEQUANTIZE, PER_CHANNEL):
        return None
    codes = constants.value(node.args[0])
    if codes is None or codes.dtype != torch.int8 or bool(((codes == _LEAST).flatten(1).sum(1) > 1).any()):
        return None
    if node.target is DEQUANTIZE:
        scheme = codes_of_node(node)
        if scheme is None or scheme.zero or scheme.moved:
            return None
        return codes, torch.full((len(codes),), scheme.scale, dtype=torch.float64)
    scales, zeros, axis = constants.value(node.args[1]), node.args[2], node.args[3]
    offsets = constants.value(zeros) if isinstance(zeros, fx.Node) else torch.zeros(1)
    if axis != 0 or scales is None or offsets is None or bool(offsets.any()):
        return None
    return codes, scales.double()
