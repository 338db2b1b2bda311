"""The type that every value of the graph is computed in: the one that it was read in, or a narrower one where it is asked for.

What is computed in another type than it was written in is decided here, by a pass over the whole graph before anything is
laid out; whoever lays out, packs or emits asks a node for its type.
"""

from __future__ import annotations

from ..dtypes import DTYPES
from .nodes import Graph, Node, Scalar

__all__ = ["ASKED", "assign_types", "moves", "narrow", "reshapes", "takes"]

_TYPES = frozenset({"float32", "float16"})
"""What kernels of ours take and give; an operator on another type stays TVM's."""
_READ = frozenset({"float32"})
"""What operators are read in that become kernels of ours."""
ASKED = ("float32", "float16", "int8")
"""Types that a network can be computed in; in the last one all layers of one that is quantised."""
_GIVEN = frozenset({"input", "constant", "foreign", "item", "convert"})
"""Nodes whose type is not ours to choose."""
CODES = frozenset(
    {
        "requantize", "rescale", "quantize", "dequantize", "code_sum", "code_offset", "code_scale", "code_product",
        "code_shift",
    }
)  # fmt: skip
"""Functions of codes, or that give them."""
_NARROWED = frozenset({"convolution", "transposed", "pool", "mean", "scalar", "concat", "frame", "reindex"})
"""Operations with kernels for narrower types. What attention is made of stays as it is: its sums of exponentials are long."""


def takes(dtype: str) -> bool:
    """Whether operators on `dtype` become kernels of ours."""
    return dtype in _READ


def moves(dtype: str) -> bool:
    """Whether operators that only move elements of it, or take the largest, become kernels of ours."""
    return takes(dtype) or dtype == "int8"


def narrow(graph: Graph, dtype: str) -> None:
    """Has the layers of a graph of float32 computed in `dtype`, and their values converted where others read them.

    Inputs and outputs keep their types, and so does what no kernel of ours takes: it reads and gives float32.
    """
    if dtype == "float32":
        return
    narrowed: set[Node] = set()
    for node in graph.nodes:
        if (node.op in _NARROWED and node.dtype == "float32") or (reshapes(node) and node.inputs[0] in narrowed):
            node.dtype = dtype
            narrowed.add(node)
    known: dict[tuple[Node, str], Node] = {}

    def given_to(reader_is_narrowed: bool, source: Node) -> Node:
        """`source` as its reader takes it. What the model itself has in other types stays as it is."""
        wanted = dtype if reader_is_narrowed else "float32"
        if reader_is_narrowed == (source in narrowed) or (reader_is_narrowed and source.dtype != "float32"):
            return source
        key = source, wanted
        if key not in known and source.op == "constant":
            known[key] = Node("constant", [], source.shape, wanted, source.detail, source.name)
        elif key not in known:
            known[key] = Node("convert", [source], source.shape, wanted)
        return known[key]

    for node in graph.nodes:
        node.inputs = [given_to(node in narrowed, source) for source in node.inputs]
    graph.outputs = [given_to(False, node) for node in graph.outputs]
    graph.refresh()


def assign_types(graph: Graph) -> None:
    """Gives every node the type that it is computed in, that of its first operand, and constants that of their readers.

    Raises:
        AssertionError: a rule of reading took an operator on a type that no kernel takes, or on several.
    """
    for node in graph.nodes:
        if node.op in _GIVEN or _on_codes(node):
            continue
        node.dtype = node.inputs[0].dtype if node.inputs[0].op != "constant" else node.dtype
        for source in node.inputs:
            if source.op == "constant":
                source.dtype = node.dtype
        kinds = {node.dtype, *(source.dtype for source in node.inputs)}
        if len(kinds) > 1 or not (node.dtype in _TYPES or reshapes(node)):
            raise AssertionError(f"'{node.op}' computes on {', '.join(sorted(kinds))}")


def _on_codes(node: Node) -> bool:
    """Whether it computes with codes, and was given its type when it was read."""
    changes = node.op == "scalar" and node.detail_as(Scalar).function in CODES
    return changes or any(DTYPES[source.dtype].is_code for source in node.inputs if source.dtype in DTYPES)


def reshapes(node: Node) -> bool:
    """Whether it only gives elements another shape, which needs no kernel."""
    return node.op in ("reshape", "flatten")
