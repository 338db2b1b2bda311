"""From liveness to a smaller graph: parameters sliced under their own names, literal sizes patched, dead code gone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..frontend.graph_module import CapturedModule, captured_module, copied_graph
from .dependency import DependencyView
from .edit import Edit, remaining_shape, set_value
from .liveness import Liveness
from .rules import Rule, rule_of
from .stored import place_tensor
from .values import Operation, attribute, is_tensor, shape_of

__all__ = ["kept_positions", "rewrite"]

Bools = NDArray[np.bool_]


def kept_positions(view: DependencyView, live: Liveness) -> dict[str, dict[int, Bools]]:
    """For every stored tensor that loses something: which positions of which axes stay."""
    result: dict[str, dict[int, Bools]] = {}
    for name, node in view.stored.items():
        axes = {axis: live.kept(node, axis) for axis in range(len(shape_of(node)))}
        changed = {axis: kept for axis, kept in axes.items() if not kept.all()}
        if changed:
            result[name] = changed
    return result


def rewrite(view: DependencyView, live: Liveness) -> CapturedModule:
    """Makes the compacted module. The view's module is not touched and shares no tensor with the result."""
    node_map: dict[fx.Node, fx.Node] = {}
    graph = copied_graph(view.module.graph, node_map)
    edit = Edit(view.module, view.stored, live, graph, node_map)
    for operation in view.operations.values():
        rule = rule_of(operation)
        if type(rule).rewrite is not Rule.rewrite:
            rule.rewrite(operation, edit)
    root = torch.nn.Module()
    _store_tensors(view, edit, root)
    _refresh_shapes(view, live, edit, node_map)
    _drop_aliases(graph)
    graph.eliminate_dead_code()
    _prune_unread(root, graph)
    graph.lint()
    return captured_module(root, graph, view.module.meta, counts=view.module)


def _store_tensors(view: DependencyView, edit: Edit, root: torch.nn.Module) -> None:
    for name, node in view.stored.items():
        original = attribute(view.module, name)
        tensor = edit.parameter(node)
        tensor = tensor.clone() if tensor.data_ptr() == original.data_ptr() else tensor
        if isinstance(original, torch.nn.Parameter):
            tensor = torch.nn.Parameter(tensor, requires_grad=original.requires_grad)
        place_tensor(root, name, tensor)
    for name, tensor in edit.added.items():
        place_tensor(root, name, tensor)
    for node in view.module.graph.nodes:
        if node.op == "get_attr" and not is_tensor(
            node
        ):  # A graph that an operator calls, such as a branch of ``cond``.
            place_tensor(root, str(node.target), copy.deepcopy(attribute(view.module, str(node.target))))


def _refresh_shapes(view: DependencyView, live: Liveness, edit: Edit, node_map: dict[fx.Node, fx.Node]) -> None:
    """Gives every new node the shape it has now, for passes that come after."""
    made: dict[Any, torch.Tensor] = {}  # Nodes of one shape share its stand-in: making one costs as much as a rule.
    for node, new in node_map.items():
        if is_tensor(node):
            # A rule may have stored a tensor of another shape than slicing gives: of a group's inputs only those it reads.
            shape = list(edit.parameter(node).shape) if node.op == "get_attr" else remaining_shape(live, node)
            if shape != list(shape_of(node)):
                old = node.meta["val"]
                key = (old.dtype, old.device, *shape) if all(isinstance(size, int) for size in shape) else node
                if key not in made:
                    made[key] = old.new_empty(shape)
                set_value(new, made[key])
    for node, operation in view.operations.items():
        if not is_tensor(node):
            set_value(node_map[node], _remaining_results(operation, node_map))


def _remaining_results(operation: Operation, node_map: dict[fx.Node, fx.Node]) -> Any:
    """The values of an operator with several results; those that nobody reads keep the size they had."""
    old = operation.node.meta["val"]
    return type(old)(
        value if out is None else node_map[out].meta["val"] for value, out in zip(old, operation.outputs, strict=True)
    )


def _drop_aliases(graph: fx.Graph) -> None:
    """Calls that became identities, such as a permutation whose survivors are in order."""
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.alias.default:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            graph.erase_node(node)


def _prune_unread(root: torch.nn.Module, graph: fx.Graph) -> None:
    read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for name, _ in [*root.named_parameters(), *root.named_buffers()]:
        if name not in read:
            path, _, last = name.rpartition(".")
            delattr(root.get_submodule(path), last)
