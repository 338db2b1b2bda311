"""What a decomposed program computes from no input is computed once, by PyTorch, before TVM sees it.

TVM would fold the same nodes by building and calling a kernel for each of them. ::

    arange -> mul -> add -> index(x, .)     becomes     constant -> index(x, .)

Parameters and buffers of numbers stay as they are: what reads a layer's weight is read as that layer later on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx.node import map_arg

__all__ = ["fold_constants"]

_MAX_FOLDED_BYTES = 1 << 20
"""Bytes that a folded value may have where the values that it is made of have fewer."""


def fold_constants(program: ExportedProgram) -> None:
    """Replaces what depends on no input, parameter or floating-point buffer by constants, in place."""
    graph = program.graph_module.graph
    values = _stored(program)
    given = set(values)
    for node in graph.nodes:
        if node.op == "call_function" and _is_known(node, values) and _fits(node, values):
            values[node] = _value(node, values)
    folded = [node for node in values if node not in given and _is_read(node, values)]
    for node in folded:
        node.replace_all_uses_with(_constant(program, node, values[node]))
    for node in reversed(list(values)):
        if node.op == "call_function" and not node.users:
            graph.erase_node(node)
    if folded:
        program.graph_module.recompile()


def _stored(program: ExportedProgram) -> dict[fx.Node, Any]:
    """What the program holds and does not write, but what may be a weight."""
    stored = {**program.state_dict, **program.constants}
    kinds = (InputKind.CONSTANT_TENSOR, InputKind.BUFFER)
    named = {
        spec.arg.name: stored.get(spec.target) for spec in program.graph_signature.input_specs if spec.kind in kinds
    }
    found = {node: named.get(node.name) for node in program.graph.find_nodes(op="placeholder")}
    return {node: value for node, value in found.items() if isinstance(value, Tensor) and not value.is_floating_point()}


def _is_known(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether `node` is a function of known values and of nothing else. What has no value is a check, not a function."""
    target = node.target
    if "val" not in node.meta:
        return False
    if isinstance(target, torch._ops.OpOverload):
        if target._schema.is_mutable or torch.Tag.nondeterministic_seeded in target.tags:
            return False
    elif target.__name__ != "getitem":  # type: ignore[union-attr]
        return False
    return all(source in values for source in node.all_input_nodes)


def _value(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = map_arg((node.args, node.kwargs), values.__getitem__)  # type: ignore[arg-type]
    with torch.no_grad():
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _fits(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Asked before it is computed, since that may need more memory than there is."""
    return _bytes(node.meta["val"]) <= max(
        _MAX_FOLDED_BYTES, sum(_bytes(values[source]) for source in node.all_input_nodes)
    )


def _bytes(value: Any) -> int:
    parts = value if isinstance(value, tuple | list) else [value]
    return sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))


def _is_read(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    """Whether what is not known reads it. What makes a tensor of nothing stays: importers know what it is."""
    if not node.all_input_nodes or not isinstance(values[node], Tensor):
        return False
    return any(user not in values for user in node.users)


def _constant(program: ExportedProgram, node: fx.Node, value: Tensor) -> fx.Node:
    """A new placeholder for a constant tensor, before all others."""
    graph, signature = program.graph_module.graph, program.graph_signature
    with graph.inserting_before(next(iter(graph.nodes))):
        placeholder = graph.placeholder(f"folded_{node.name}")
    placeholder.meta["val"] = node.meta["val"]
    spec = InputSpec(InputKind.CONSTANT_TENSOR, TensorArgument(placeholder.name), placeholder.name)
    signature.input_specs.insert(0, spec)
    program.constants[placeholder.name] = value.contiguous()
    return placeholder
