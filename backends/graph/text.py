"""The backend's graph as text: a line a node, and nothing that changes from run to run.

A node has one name in all texts of its graph, so that what a stage did is the difference of two texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .fusion import group_nodes
from .nodes import Convolution, Foreign, Graph, Node, Normalization, Reference, Reindex, Scalar

__all__ = ["by", "fields_text", "fused_text", "graph_text", "names_of", "runs"]


def graph_text(graph: Graph) -> str:
    """Name, operation, operands, shape, type, and what else the operation needs to know; of weights the shape, of
    constants the shape or the one number.
    """
    names = names_of(graph)
    return "\n".join([*(_line(node, names) for node in graph.nodes), _returned(graph, names)])


def fused_text(graph: Graph) -> str:
    """The same by kernel: what a kernel computes behind its first node is indented under it."""
    names = names_of(graph)
    lines = []
    for group in group_nodes(graph):
        anchor = [] if group.anchor is None else [group.anchor]
        first, *others = [*anchor, *group.scalars] or [group.sink]
        lines += [_line(first, names), *(f"    {_line(node, names)}" for node in others)]
    return "\n".join([*lines, _returned(graph, names)])


def names_of(graph: Graph) -> dict[Node, str]:
    """What nodes are called in texts: inputs as in the program, others by their operation, numbered. Names are kept with
    the graph, those of nodes that are gone, too.
    """
    names = graph.names
    taken = set(names.values())
    for node in graph.nodes:
        if node not in names:
            names[node] = _unused(_kind(node), taken)
            taken.add(names[node])
    return names


def _unused(name: str, taken: set[str]) -> str:
    number = 0
    while (numbered := f"{name}_{number}" if number else name) in taken:
        number += 1
    return numbered


def _kind(node: Node) -> str:
    if isinstance(node.detail, Scalar):
        return node.detail.function
    if node.op == "foreign":
        return node.name.rpartition(".")[2]
    return node.name if node.op == "input" else node.op


def _line(node: Node, names: dict[Node, str]) -> str:
    value = "tuple" if node.dtype == "tuple" else f"{by(node.shape)} {node.dtype}"
    detail = "".join(f", {part}" for part in _detail(node.detail))
    return f"{names[node]} = {_operation(node, names)} {value}{detail}"


def _operation(node: Node, names: dict[Node, str]) -> str:
    operands = [names[source] for source in node.inputs]
    if isinstance(node.detail, Foreign):
        arguments = [_argument(argument, operands) for argument in node.detail.arguments]
        return f"foreign {node.name}({', '.join(part for part in arguments if part)})"
    if node.op == "constant" and node.detail_as(np.ndarray).size == 1:
        return f"constant {node.detail_as(np.ndarray).item()!r}"
    if node.op in ("input", "constant"):
        return node.op
    if isinstance(node.detail, Scalar):
        return f"{node.detail.function}({', '.join([*operands, *map(repr, node.detail.parameters)])})"
    return f"{node.op}({', '.join(operands)})"


def _argument(value: Any, operands: Sequence[str]) -> str:
    """An argument of a foreign call; nothing of a kernel, which the call is named for."""
    if isinstance(value, Reference):
        return operands[value.index]
    if isinstance(value, tuple):
        return f"[{', '.join(_argument(part, operands) for part in value)}]"
    numbers = getattr(value, "values", None)
    if numbers is not None:
        return by([_argument(number, operands) for number in numbers])
    number = getattr(value, "value", None)
    return str(number) if number is not None else "" if hasattr(value, "body") else str(value)


def _detail(detail: Any) -> Iterator[str]:
    if isinstance(detail, Convolution):
        kernel, bias = detail.weights.kernel, detail.weights.bias
        zeros = kernel.size - np.count_nonzero(kernel)
        yield f"kernel {by(kernel.shape)}" + (f" of {zeros} zeros" if zeros else "")
        if bias.any():
            yield "bias"
        yield from fields_text(detail, "weights")
    elif isinstance(detail, Normalization):
        yield from fields_text(detail, "scale", "shift")
    elif isinstance(detail, Reindex):
        yield f"source {runs(detail.source)}"
    elif isinstance(detail, Foreign):
        if detail.call.attrs is not None:
            yield str(detail.call.attrs).partition("(")[2].removesuffix(")")
    elif isinstance(detail, int):
        yield f"item {detail}"
    elif dataclasses.is_dataclass(detail) and not isinstance(detail, Scalar):
        yield from fields_text(detail)


def fields_text(record: Any, *but: str) -> Iterator[str]:
    """The fields of a dataclass that are not their defaults, by name: ``stride (2, 2)``; of a flag only the name."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name in but or value == field.default or value is False:
            continue
        yield field.name if value is True else f"{field.name} {value}"


def by(numbers: Sequence[Any]) -> str:
    """``1x3x8x8``; ``scalar`` for none."""
    return "x".join(map(str, numbers)) or "scalar"


def runs(numbers: Sequence[int]) -> str:
    """``0-3 8 6`` for 0, 1, 2, 3, 8, 6."""
    found: list[list[int]] = []
    for number in map(int, numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def _returned(graph: Graph, names: dict[Node, str]) -> str:
    returned = ", ".join(names[node] for node in graph.outputs)
    return f"return ({returned})" if graph.returns_tuple else f"return {returned}"
