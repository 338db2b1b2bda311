"""The graph of a model in inference beside that of the same model in training: what pairs, and what differs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from .calls import describe, innermost, named_arguments

__all__ = ["compare"]

Arguments = dict[fx.Node, dict[str, tuple[Any, Any]]]

_SILENT = ("get_attr", "placeholder", "output")
_BOOKKEEPING = re.compile(r"getitem|aten\.(detach|sym_\w+|_assert\w*)\..*|.*_guards_fn.*")


def compare(evaluated: fx.Graph, trained: fx.Graph) -> tuple[Arguments, list[str]]:
    """The arguments that differ between calls that correspond, and lines about calls that are in one graph only.

    Calls of one operator in one module correspond in their order where the graphs have as many of them; where not, those
    of one source line do.
    """
    pairs = _pairs(evaluated, trained)
    partners = dict(pairs)
    arguments: Arguments = {}
    differences: dict[str, None] = {}
    for first, second in pairs:
        plain, rewired = _differing(first, second, partners)
        if plain:
            arguments[first] = plain
        if rewired and (first.op == "output" or all(value in set(partners.values()) for value in rewired)):
            what = "other outputs" if first.op == "output" else f"other operands of {describe(first)}"
            differences[what] = None
    found = set(partners.values())
    for node in trained.nodes:
        if node not in found and not _is_bookkeeping(node):
            differences[describe(node)] = None
    for node in evaluated.nodes:
        if node not in partners and not _is_bookkeeping(node):
            differences[f"no {describe(node)}"] = None
    return arguments, list(differences)


def _pairs(evaluated: fx.Graph, trained: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Nodes that correspond, in the order of the first graph."""
    first, second = _grouped(evaluated), _grouped(trained)
    found: dict[fx.Node, fx.Node] = {}
    for key, nodes in first.items():
        others = second.get(key, [])
        if len(nodes) == len(others):
            found.update(zip(nodes, others, strict=True))
            continue
        by_line, others_by_line = _by_line(nodes), _by_line(others)
        for line, group in by_line.items():
            if len(group) == len(others_by_line.get(line, [])):
                found.update(zip(group, others_by_line[line], strict=True))
    return [(node, found[node]) for node in evaluated.nodes if node in found]


def _grouped(graph: fx.Graph) -> dict[tuple[str, ...], list[fx.Node]]:
    groups: dict[tuple[str, ...], list[fx.Node]] = {}
    inputs = 0
    for node in graph.nodes:
        if node.op == "placeholder":
            key: tuple[str, ...] = (node.op, str(inputs))
            inputs += 1
        elif node.op == "call_function":
            key = (node.op, str(node.target), innermost(node)[0])
        else:
            key = (node.op, str(node.target))
        groups.setdefault(key, []).append(node)
    return groups


def _by_line(nodes: list[fx.Node]) -> dict[str, list[fx.Node]]:
    lines: dict[str, list[fx.Node]] = {}
    for node in nodes:
        lines.setdefault(node.meta.get("stack_trace") or "", []).append(node)
    return lines


def _differing(
    first: fx.Node, second: fx.Node, partners: Mapping[fx.Node, fx.Node]
) -> tuple[dict[str, tuple[Any, Any]], list[fx.Node]]:
    """Plain arguments that differ, by name, and operands of the second call that are not those of the first."""
    plain: dict[str, tuple[Any, Any]] = {}
    rewired: list[fx.Node] = []
    ours, theirs = named_arguments(first), named_arguments(second)
    for name, value in ours.items():
        other = theirs.get(name)
        operands, others = _operands(value), _operands(other)
        if not operands and not others:
            if not _same(value, other):
                plain[name] = (value, other)
        elif len(operands) != len(others) or not _is_operator(first):
            if [partners.get(operand) for operand in operands] != others:
                rewired.extend(others)
        else:
            rewired.extend(b for a, b in zip(operands, others, strict=True) if partners.get(a) is not b)
    return plain, rewired


def _operands(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found


def _is_operator(node: fx.Node) -> bool:
    return node.op == "call_function"


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    return type(first) is type(second) and bool(first == second)


def _is_bookkeeping(node: fx.Node) -> bool:
    """Calls that compute nothing a person would miss: checks, sizes, and the batches that a layer counts."""
    if node.op in _SILENT:
        return True
    if node.target is torch.ops.aten.add_.Tensor and isinstance(node.args[0], fx.Node):
        return str(node.args[0].target).endswith("num_batches_tracked")
    return bool(_BOOKKEEPING.fullmatch(str(node.target)) or "getitem" in str(node.target))
