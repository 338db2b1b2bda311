"""How families of operators take part in a graph of 8-bit integers."""

from __future__ import annotations

from torch import fx

from ..values import Operation, operator_name

__all__ = [
    "ACTIVATIONS",
    "AVERAGES",
    "JOINS",
    "LAYERS",
    "OUT_AXIS",
    "SPLITS",
    "is_average",
    "is_clamp",
    "is_move",
    "is_sum",
]


def _named(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


LAYERS = _named("conv1d conv2d linear conv_transpose1d conv_transpose2d")
"""What multiplies with stored weights."""

OUT_AXIS = {"aten.conv_transpose1d": 1, "aten.conv_transpose2d": 1}
"""The axis of a weight that has a scale for each position, where it is not 0: that of output channels in each group."""

JOINS = _named("cat concat concatenate stack")
"""Their operands and their result are on one scale."""

SPLITS = _named("chunk split split_with_sizes tensor_split unbind")
"""They give several values, on the scale of their operand."""

AVERAGES = _named(
    "mean adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d upsample_linear1d upsample_bilinear2d"
)
"""Weighted means of neighbours, which lie closer together than these: they have a scale of their own."""

ACTIVATIONS = _named(
    "silu sigmoid hardswish hardsigmoid gelu tanh elu selu celu leaky_relu prelu mish softplus log_sigmoid softsign abs"
)
"""Functions of one value. They are computed in float, of a value that is rounded: a table of 256 entries could stand for
each."""

_CLAMPS = _named("relu relu6 hardtanh clamp clamp_min clamp_max clip")
_SUMS = _named("add sub rsub mul")
_MOVES = _named(
    "max_pool1d max_pool2d view view_as reshape flatten unflatten squeeze unsqueeze "
    "permute transpose movedim swapaxes t contiguous clone detach alias expand expand_as repeat slice narrow select "
    "index_select flip roll channel_shuffle pixel_shuffle pixel_unshuffle dropout dropout2d feature_dropout alpha_dropout "
    "upsample_nearest1d upsample_nearest2d _upsample_nearest_exact1d _upsample_nearest_exact2d"
)
_PADS = _named("pad constant_pad_nd")
_MOVING_PADS = ("reflect", "replicate", "circular")


def is_clamp(node: fx.Node) -> bool:
    """Cuts a value off at numbers that the graph states."""
    return operator_name(node) in _CLAMPS and len(node.all_input_nodes) == 1


def is_sum(node: fx.Node) -> bool:
    """The sum, difference or product of two values, of which one may be stored."""
    if operator_name(node) not in _SUMS:
        return False
    call = Operation(node)
    sides = [call["self"], call["other"]]
    return all(isinstance(side, fx.Node) for side in sides) and any(side.op != "get_attr" for side in sides)


def is_average(node: fx.Node) -> bool:
    """One of `AVERAGES`, which does not change the type."""
    return operator_name(node) in AVERAGES and Operation(node).get("dtype") is None


def is_move(node: fx.Node) -> bool:
    """Gives numbers of its operand and zeros only, so that bytes move as they are."""
    name = operator_name(node)
    if name in _PADS:
        call = Operation(node)
        return call.get("mode", "constant") in _MOVING_PADS or not call.get("value")
    return name in _MOVES and not Operation(node).draws and len(node.all_input_nodes) >= 1
