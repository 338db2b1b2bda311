"""The calls of a graph, and which of them are weighted layers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from .layers import Layer
from .rules import layer_of
from .values import Operation, is_tensor, operator_name

__all__ = ["layers_of", "operations_of"]


def operations_of(module: fx.GraphModule) -> dict[fx.Node, Operation]:
    """Every call of the graph that reads or makes tensors, in order; ``getitem`` belongs to the call it picks from."""
    return {
        node: Operation(node, module)
        for node in module.graph.nodes
        if node.op == "call_function"
        and operator_name(node) != "getitem"
        and (is_tensor(node) or isinstance(node.meta.get("val"), tuple | list))
    }


def layers_of(operations: Mapping[fx.Node, Operation]) -> dict[str, tuple[Layer, ...]]:
    """By the name of a stored weight, the convolution or linear layer that each call with it is, in the order of the calls."""
    found: dict[str, tuple[Layer, ...]] = {}
    for operation in operations.values():
        layer = layer_of(operation)
        if layer is not None and layer.weight.op == "get_attr":
            name = str(layer.weight.target)
            found[name] = (*found.get(name, ()), layer)
    return found
