"""Which layers of the smaller graph are to be solved anew, and why others cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ...frontend.graph_module import CapturedModule
from ..layers import Layer
from ..operations import operations_of
from ..plan import Plan
from ..rules import layer_of
from ..values import Operation, attribute, is_tensor, shape_of
from .offsets import Offset, offset_of
from .sampling import MOST_COLUMNS, columns_of

__all__ = ["Reader", "Refusal", "kept_channels", "obstacle", "readers_of"]


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer of the smaller graph that is to be solved.

    Attributes:
        op: its call.
        layer: what the call is.
        weight: the stored tensor.
        twin: the same call in the dense graph.
        kept: its output channels, as positions in the dense graph.
        offset: where the mean of its outputs is kept; None for a layer without a bias, which no normalisation follows.
    """

    op: Operation
    layer: Layer
    weight: Tensor
    twin: fx.Node
    kept: Tensor
    offset: Offset | None

    @property
    def name(self) -> str:
        return str(self.layer.weight.target)

    @property
    def columns(self) -> int:
        """Numbers that one output position reads."""
        return columns_of(self.layer)


@dataclass(frozen=True)
class Refusal:
    """A layer that cannot be solved."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: not solved anew, because {self.reason}"


def readers_of(dense: fx.GraphModule, small: CapturedModule, plan: Plan) -> Iterator[Reader | Refusal]:
    """The layers of `small` whose outputs read fewer numbers than in `dense`."""
    twins = {node.name: node for node in dense.graph.nodes}
    for op in operations_of(small).values():
        layer = layer_of(op)
        if layer is None:
            continue
        twin = twins.get(op.node.name)
        if twin is None or _reads_fewer(layer, twin):
            yield _reader(small, op, layer, twin, plan)


def _reads_fewer(layer: Layer, twin: fx.Node) -> bool:
    before = layer_of(Operation(twin))
    return before is None or columns_of(before) != columns_of(layer)


def _reader(small: CapturedModule, op: Operation, layer: Layer, twin: fx.Node | None, plan: Plan) -> Reader | Refusal:
    name = str(layer.weight.target) if layer.weight.op == "get_attr" else op.node.name
    reason = obstacle(op, layer, twin)
    if reason or twin is None:
        return Refusal(name, reason or "the dense graph has no such call")
    kept = kept_channels(layer, twin, plan)
    if kept is None or len(kept) != shape_of(op.node)[layer.axis]:
        return Refusal(name, "which of its outputs stay is not known: it is a transposed convolution in groups")
    offset = offset_of(small, op, layer)
    if isinstance(offset, str):
        return Refusal(name, offset)
    weight: Tensor = attribute(small, name)
    return Reader(op, layer, weight, twin, kept, offset)


def obstacle(op: Operation, layer: Layer, twin: fx.Node | None) -> str:
    """Why a layer cannot be solved; empty if it can."""
    weight = op.tensor("weight")
    if weight is None:
        return "its weight is computed from other values"
    if len(layer.weight.users) > 1:
        return f"its weight has {len(layer.weight.users)} readers"
    if not weight.is_floating_point():
        return f"its weights are {str(weight.dtype).removeprefix('torch.')}"
    if columns_of(layer) > MOST_COLUMNS:
        return f"one output reads {columns_of(layer):,} numbers, and {MOST_COLUMNS:,} are the most"
    return "" if twin is not None and is_tensor(twin) else "the dense graph has no such call"


def kept_channels(layer: Layer, twin: fx.Node, plan: Plan) -> Tensor | None:
    """The output channels of a layer of the smaller graph as positions in the dense one's; None where that is not known."""
    channels = int(shape_of(twin)[layer.axis])
    axis = layer.out_axis if layer.groups == 1 else 0
    known = [(layer.weight, axis)] if layer.groups == 1 or layer.depthwise or not layer.transposed else []
    known += [(layer.bias, 0)] if layer.bias is not None else []
    for node, place in known:
        kept = plan.kept.get(str(node.target), {})
        return kept.get(place, torch.arange(channels))
    return torch.arange(channels)
