"""Convolutions and linear layers whose weights and inputs are quantised: products of codes, added in int32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .constants import Constants
from .operators import OPERATORS
from .scheme import DEQUANTIZE, PER_CHANNEL, Codes, codes_of_node, gives_float32
from .transposed import Spread, spread_of, spread_out, turned

__all__ = ["Layer", "along", "layer_of"]

A = torch.ops.aten

CONVOLUTIONS = {A.conv1d.default: 1, A.conv1d.padding: 1, A.conv2d.default: 2, A.conv2d.padding: 2}
"""By operator, along how many axes its window moves."""
TRANSPOSED = {A.conv_transpose1d.default: 1, A.conv_transpose2d.input: 2}
"""The same of transposed ones."""
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
        spread: of a transposed convolution, what is put between and around the pixels before.
    """

    source: fx.Node
    zero: int
    weight: Tensor
    bias: Tensor
    scale: Tensor
    axis: int
    window: tuple[list[int], list[int], list[int], int] | None
    name: str
    spread: Spread | None = None

    def emitted(self, at: fx.Node, emit: Callable[..., fx.Node], constants: Constants) -> fx.Node:
        """The node of its sums, right before `at`; those of a line are an image of height 1, ``(N, O, 1, L)``."""
        source, weight = self.source, self.weight
        if self.window is not None and weight.dim() == 3:
            batch, channels, length = (int(extent) for extent in source.meta["val"].shape)
            source, weight = emit(at, A.reshape.default, source, [batch, channels, 1, length]), weight.unsqueeze(2)
        if self.spread is not None:
            source = spread_out(at, emit, source, self.zero, self.spread)
        operands = (source, constants.node(at, weight), constants.node(at, self.bias), self.zero)
        if self.window is None:
            return emit(at, OPERATORS.integer_linear.default, *operands)
        return emit(at, OPERATORS.integer_conv2d.default, *operands, *self.window)


def layer_of(
    node: fx.Node, constants: Constants, known: Callable[[Any], tuple[Codes, fx.Node] | None]
) -> Layer | str | None:
    """The layer that `node` is; why it is computed in float32 where its weights are quantised; None where it is none.

    Args:
        known: gives the codes that a value is read from.
    """
    target: Any = node.target
    axes, transposed = {**CONVOLUTIONS, **TRANSPOSED}.get(target), target in TRANSPOSED
    if axes is None and target is not A.linear.default:
        return None
    weights = _weights(node.args[1], constants, 1 if transposed else 0)
    if weights is None or isinstance(weights, str):
        return weights
    source = known(node.args[0])
    why = "its input is not quantised" if source is None else _no_result(node, axes)
    if source is None or why is not None:
        return why
    window = None if axes is None or transposed else _window(node)
    spread = None
    if transposed:
        window, spread = _transposed(node)
    if axes is not None and window is None:
        return "its padding is wider on one side"
    codes, read = source
    weight, steps = weights
    if transposed and window is not None:
        weight, steps = turned(weight, window[3]), steps.repeat(window[3])
    scale = steps.double() * codes.scale
    given = node.args[2] if len(node.args) > 2 else None
    offsets = torch.zeros(len(weight)) if given is None else constants.value(given)
    if offsets is None:
        return "its bias is computed in every call"
    bias = torch.round(offsets.double() / scale)
    most = bias.abs() + weight.double().flatten(1).abs().sum(1) * _CODES
    if not bool((most <= _MOST).all()):
        return "its sums might not fit in 32 bits"
    axis = 1 if window is not None else node.meta["val"].dim() - 1
    return Layer(read, codes.zero, weight, bias.to(torch.int32), scale, axis, window, _name(node.args[1]), spread)


def _no_result(node: fx.Node, axes: int | None) -> str | None:
    """Why no kernel gives what a layer does, by its shape; `axes` are those of its window."""
    shape = node.meta["val"].shape
    if axes is not None and len(shape) != axes + 2:
        return "its input has no batch"
    return "it computes nothing" if any(isinstance(size, int) and size == 0 for size in shape) else None


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


def _transposed(node: fx.Node) -> tuple[tuple[list[int], list[int], list[int], int], Spread]:
    """What a transposed convolution does as a plain one, and what is done to its input before."""
    given: Sequence[Any] = node.args
    defaults: Sequence[Any] = ([1], [0], [0], 1, [1])
    *numbers, groups, dilation = [*given[3:], *defaults[len(given[3:]) :]]
    extents = [int(extent) for extent in given[1].meta["val"].shape[2:]]
    stride, padding, more, dilation = (along(value, len(extents)) for value in (*numbers, dilation))
    if len(extents) == 1:
        extents, stride, padding, more, dilation = (
            [1, *extents],
            [1, *stride],
            [0, *padding],
            [0, *more],
            [1, *dilation],
        )
    return ([1, 1], [0, 0], dilation, int(groups)), spread_of(extents, stride, padding, more, dilation)


def along(value: Any, axes: int) -> list[int]:
    """A number for each axis, given as one for all, as a list of one, or as all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _weights(node: Any, constants: Constants, along: int) -> tuple[Tensor, Tensor] | str | None:
    """The codes of weights and the scale of each output channel, which lie `along` an axis; why they are not multiplied as
    codes; None for others."""
    if not isinstance(node, fx.Node) or "dequantize" not in str(node.target):
        return None
    if node.target not in (DEQUANTIZE, PER_CHANNEL):
        return "its weights have scales for groups, and here channels have them"
    if not gives_float32(node):
        return "its weights are not float32"
    codes = constants.value(node.args[0])
    if codes is None:
        return "its weights are computed in every call"
    if node.target is DEQUANTIZE:
        scheme = codes_of_node(node)
        if scheme is None:
            return "its weights are wider than a byte, or their scale is no positive number"
        same = torch.full((codes.shape[along],), scheme.scale, dtype=torch.float64)
        return _centred(codes, torch.tensor([scheme.zero - scheme.moved]), same, along)
    found = _of_channels(node, codes.dim(), constants, along)
    return found if isinstance(found, str) else _centred(codes, *found, along)


def _of_channels(node: fx.Node, rank: int, constants: Constants, along: int) -> tuple[Tensor, Tensor] | str:
    """The zeros and scales of weights that have them for channels; why these are not output channels', or no numbers."""
    given: Sequence[Any] = node.args
    scales, zeros, axis = constants.value(given[1]), given[2], given[3] % rank
    offsets = torch.zeros(1) if zeros is None else constants.value(zeros)
    if axis != along:
        return f"its weights have scales along axis {axis}, and output channels lie along axis {along}"
    if scales is None or offsets is None:
        return "its scales are computed in every call"
    if not bool((scales.isfinite() & (scales != 0)).all()):
        return "a scale of its weights is zero, infinite or NaN"
    if not torch.equal(offsets, offsets.round()):
        return "a zero point of its weights is no whole number"
    return offsets, scales


def _centred(codes: Tensor, zeros: Tensor, scales: Tensor, along: int) -> tuple[Tensor, Tensor] | str:
    """The weights as codes whose zero is 0, in int8, whatever type and zeros they have."""
    whole = codes.to(torch.int32) - zeros.to(torch.int32).view([-1 if at == along else 1 for at in range(codes.dim())])
    if not bool(((whole >= _LEAST) & (whole < -_LEAST)).all()):
        return "its weights are further than a byte from their zero point; quantise weights symmetrically"
    # Two products of an output might not fit in 16 bits.
    if bool(((whole == _LEAST).movedim(along, 0).flatten(1).sum(1) > 1).any()):
        return "an output has the weight -128 twice; quantise weights to -127..127"
    return whole.to(torch.int8), scales.double()
