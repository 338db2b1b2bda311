"""Cross-layer equalisation: channels between two layers are scaled so that both layers' weights have equal ranges.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, section 4.1: with r1 the range of a filter of the first layer and r2 that of the weights that read its channel,
``s = sqrt(r1 / r2)``; the filter and its bias are divided by s, and what reads it is multiplied.

That computes the same only where what lies between gives ``f(s x) = s f(x)`` for s > 0, channel by channel: ReLU, leaky ReLU,
maxima and averages, zeros around. ReLU6 and other functions do not, and such chains are left alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from ...frontend.graph_module import CapturedModule, captured_module, copied_graph
from ..layers import Layer
from ..rules import layer_of
from ..stored import holder_of
from ..values import Operation, attribute, operator_name
from .operators import is_move

__all__ = ["equalized"]

_TURNS = 20
_ENOUGH = 1e-3
"""Of the natural logarithm of all scales of a turn: then nothing moves any more."""

_HOMOGENEOUS = {
    f"aten.{name}"
    for name in "relu leaky_relu max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d pad "
    "constant_pad_nd dropout contiguous clone detach alias".split()
}


def equalized(module: CapturedModule) -> tuple[CapturedModule, int]:
    """A new module that computes the same, up to rounding, with equal ranges; and how many pairs of layers there were.

    `module`: prepared; it is not changed.
    """
    graph = copied_graph(module.graph)
    names = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    tensors = {name: attribute(module, name) for name in names}
    pairs = _pairs(module, graph)
    for layer in dict.fromkeys(layer for pair in pairs for layer in pair):
        for stored in filter(None, (layer.weight, layer.bias)):
            old = tensors[str(stored.target)]
            tensors[str(stored.target)] = torch.nn.Parameter(old.detach().clone(), requires_grad=old.requires_grad)
    with torch.no_grad():
        for _ in range(_TURNS):
            moved = [_equalize(tensors, first, second) for first, second in pairs]
            if max(moved, default=0.0) < _ENOUGH:
                break
    return captured_module(holder_of(tensors), graph, module.meta, counts=module), len(pairs)


def _pairs(module: CapturedModule, graph: fx.Graph) -> list[tuple[Layer, Layer]]:
    layers = {
        node: layer
        for node in graph.nodes
        if node.op == "call_function" and (layer := layer_of(Operation(node, module))) is not None and _is_own(layer)
    }
    found = []
    for node, layer in layers.items():
        value = node
        while len(value.users) == 1:
            (value,) = value.users
            if value in layers or not _is_homogeneous(value):
                break
        following = layers.get(value)
        if following is not None and following.axis == layer.axis and value is not node:
            found.append((layer, following))
    return found


def _is_own(layer: Layer) -> bool:
    stored = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    return not layer.transposed and all(node.op == "get_attr" and len(node.users) == 1 for node in stored)


def _is_homogeneous(node: fx.Node) -> bool:
    if node.op != "call_function" or operator_name(node) not in _HOMOGENEOUS:
        return False
    return is_move(node) or "pad" not in operator_name(node).rpartition(".")[2].split("_")[0]


def _equalize(tensors: dict[str, Tensor], first: Layer, second: Layer) -> float:
    """Scales the channels between two layers; returns the largest logarithm of a scale."""
    making, reading = tensors[str(first.weight.target)], tensors[str(second.weight.target)]
    made = making.abs().flatten(1).amax(1)
    blocks = reading.view(second.groups, -1, reading.shape[1], *[1] * (reading.dim() == 2), *reading.shape[2:])
    read = blocks.abs().flatten(3).amax((1, 3)).flatten()
    if len(read) != len(made):
        return 0.0
    scale = torch.where((made > 0) & (read > 0), (made / read).sqrt(), torch.ones_like(made))
    scale = torch.where(scale.isfinite() & (scale > 0), scale, torch.ones_like(scale))
    making.div_(scale.view(-1, *[1] * (making.dim() - 1)))
    if first.bias is not None:
        tensors[str(first.bias.target)].div_(scale)
    blocks.mul_(scale.view(second.groups, 1, -1, *[1] * (blocks.dim() - 3)))
    return float(scale.log().abs().max())
