"""The type that every value of the graph is computed in: today the one that it was read in, where kernels take that.

What is computed in another type than it was written in, as narrow integers are, is decided here, by a pass over the whole
graph before anything is laid out; whoever lays out, packs or emits asks a node for its type.
"""

from __future__ import annotations

from .nodes import Graph, Node

__all__ = ["assign_types", "takes"]

_TYPES = frozenset({"float32"})
"""What kernels of ours take and give; an operator on another type stays TVM's."""
_GIVEN = frozenset({"input", "constant", "foreign", "item"})
"""Nodes whose type is not ours to choose."""


def takes(dtype: str) -> bool:
    """Whether kernels of ours compute in `dtype`."""
    return dtype in _TYPES


def assign_types(graph: Graph) -> None:
    """Gives every node the type that it is computed in, that of its first operand, and constants that of their readers.

    Raises:
        AssertionError: a rule of reading took an operator on a type that no kernel takes, or on several.
    """
    for node in graph.nodes:
        if node.op in _GIVEN:
            continue
        node.dtype = node.inputs[0].dtype if node.inputs[0].op != "constant" else node.dtype
        for source in node.inputs:
            if source.op == "constant":
                source.dtype = node.dtype
        kinds = {node.dtype, *(source.dtype for source in node.inputs)}
        if len(kinds) > 1 or not (takes(node.dtype) or _moves(node)):
            raise AssertionError(f"'{node.op}' computes on {', '.join(sorted(kinds))}")


def _moves(node: Node) -> bool:
    """Whether it only gives elements another shape, which needs no kernel."""
    return node.op in ("reshape", "flatten")
