"""From liveness to a smaller graph: parameters sliced under their own names, literal sizes patched, dead code gone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..frontend.graph_module import CapturedModule, captured_module, copy_calling_convention
from .canonicalize import place_tensor
from .dependency import DependencyView
from .propagation import KnownConstants, Liveness
from .rules import Rule, rule_of
from .values import Operation, attribute, is_tensor, shape_of

__all__ = ["Edit", "kept_positions", "rewrite"]

Bools = NDArray[np.bool_]


class Edit:
    """What a rule may do to the new graph while it is being made. The old graph and its tensors are only read."""

    def __init__(self, view: DependencyView, live: Liveness, graph: fx.Graph, map_: dict[fx.Node, fx.Node]) -> None:
        self._view = view
        self._live = live
        self._graph = graph
        self._map = map_
        self._tensors: dict[str, torch.Tensor] = {}

    @property
    def facts(self) -> KnownConstants:
        """The constants known about the old graph."""
        return self._live.facts

    def kept(self, node: fx.Node, axis: int) -> Bools:
        """Which positions of an old node's axis stay."""
        return self._live.kept(node, axis)

    def new(self, node: fx.Node) -> fx.Node:
        """The new node that stands for an old one."""
        return self._map[node]

    def set_argument(self, op: Operation, name: str, value: Any) -> None:
        """Sets an argument of the new call by its name in the operator's schema. Old nodes in `value` become new ones."""
        node, value = self._map[op.node], self._translated(value)
        schema = op.node.target._schema  # type: ignore[union-attr]
        for position, argument in enumerate(schema.arguments):
            if argument.name != name:
                continue
            if argument.kwarg_only or name in node.kwargs:
                node.update_kwarg(name, value)
            else:
                args = list(node.args)
                args.extend(
                    node.kwargs.get(missing.name, missing.default_value if missing.has_default_value() else None)
                    for missing in schema.arguments[len(args) : position + 1]
                )
                args[position] = value
                node.args = tuple(args)
                node.kwargs = {key: kept for key, kept in node.kwargs.items() if key != name}

    def set_call(self, op: Operation, target: Any, args: tuple[Any, ...]) -> None:
        """Replaces the new call by another operator's. Old nodes in `args` become new ones."""
        node = self._map[op.node]
        node.target, node.args, node.kwargs = target, self._translated(args), {}

    def insert(
        self, op: Operation, target: Any, args: tuple[Any, ...], sizes: Mapping[int, int] | None = None
    ) -> fx.Node:
        """Puts another call before `op`'s and gives its new node. Old nodes in `args` become new ones.

        Its result is shaped as what is left of `op`'s, but for the axes in `sizes`.
        """
        shape = _remaining_shape(self._live, op.node)
        for axis, size in (sizes or {}).items():
            shape[axis] = size
        with self._graph.inserting_before(self._map[op.node]):
            node = self._graph.call_function(target, self._translated(args))
        node.meta = dict(op.node.meta)
        _set_value(node, op.example.new_empty(shape))
        return node

    def _translated(self, value: Any) -> Any:
        return fx.map_arg(value, lambda node: self._map.get(node, node))

    def parameter(self, node: fx.Node) -> torch.Tensor:
        """The tensor that replaces the one an old ``get_attr`` node reads: sliced, unless a rule has set it."""
        name = str(node.target)
        if name not in self._tensors:
            self._tensors[name] = self._sliced(node)
        return self._tensors[name]

    def set_parameter(self, node: fx.Node, tensor: torch.Tensor) -> None:
        """Sets that tensor."""
        self._tensors[str(node.target)] = tensor

    def add_parameter(self, op: Operation, beside: str, name: str, tensor: torch.Tensor) -> fx.Node:
        """Stores a new trainable tensor in the module of `beside` and gives the new node that reads it."""
        path = beside.rpartition(".")[0]
        return self._add(op, f"{path}.{name}" if path else name, torch.nn.Parameter(tensor))

    def add_buffer(self, op: Operation, name: str, tensor: torch.Tensor) -> fx.Node:
        """Stores a new constant tensor and gives the new node that reads it."""
        return self._add(op, name, tensor)

    def _add(self, op: Operation, name: str, tensor: torch.Tensor) -> fx.Node:
        while name in self._view.stored or name in self._tensors:
            name += "_"
        self._tensors[name] = tensor
        with self._graph.inserting_before(self._map[op.node]):
            node = self._graph.get_attr(name)
        node.meta["val"] = op.example.new_empty(tensor.shape, dtype=tensor.dtype)
        return node

    def _sliced(self, node: fx.Node) -> torch.Tensor:
        tensor = attribute(self._view.module, str(node.target)).detach()
        for axis in range(tensor.dim()):
            kept = self.kept(node, axis)
            if not kept.all():
                tensor = tensor.index_select(axis, torch.from_numpy(np.flatnonzero(kept)).to(tensor.device))
        return tensor


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
    graph = fx.Graph()
    node_map: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(view.module.graph, node_map)
    _copy_output(view.module.graph, graph, node_map)
    edit = Edit(view, live, graph, node_map)
    for operation in view.operations.values():
        rule = rule_of(operation)
        if type(rule).rewrite is not Rule.rewrite:
            rule.rewrite(operation, edit)
    root = torch.nn.Module()
    _store_tensors(view, edit, graph, node_map, root)
    _refresh_shapes(view, live, node_map)
    copy_calling_convention(view.module.graph, graph)
    _drop_aliases(graph)
    graph.eliminate_dead_code()
    _prune_unread(root, graph)
    graph.lint()
    return captured_module(root, graph, view.module.meta, counts=view.module)


def _copy_output(old: fx.Graph, new: fx.Graph, node_map: dict[fx.Node, fx.Node]) -> None:
    output = old.output_node()
    copied = new.output(fx.map_arg(output.args[0], lambda node: node_map[node]))
    copied.meta = copy.copy(output.meta)


def _store_tensors(
    view: DependencyView, edit: Edit, graph: fx.Graph, node_map: dict[fx.Node, fx.Node], root: torch.nn.Module
) -> None:
    for name, node in view.stored.items():
        original = attribute(view.module, name)
        tensor = edit.parameter(node)
        tensor = tensor.clone() if tensor.data_ptr() == original.data_ptr() else tensor
        if isinstance(original, torch.nn.Parameter):
            tensor = torch.nn.Parameter(tensor, requires_grad=original.requires_grad)
        place_tensor(root, name, tensor)
    for name, tensor in edit._tensors.items():
        if name not in view.stored:
            place_tensor(root, name, tensor)
    for node in view.module.graph.nodes:
        if node.op == "get_attr" and not is_tensor(
            node
        ):  # A graph that an operator calls, such as a branch of ``cond``.
            place_tensor(root, str(node.target), copy.deepcopy(attribute(view.module, str(node.target))))


def _refresh_shapes(view: DependencyView, live: Liveness, node_map: dict[fx.Node, fx.Node]) -> None:
    """Gives every new node the shape it has now, for passes that come after."""
    made: dict[Any, torch.Tensor] = {}  # Nodes of one shape share its stand-in: making one costs as much as a rule.
    for node, new in node_map.items():
        if is_tensor(node):
            shape = _remaining_shape(live, node)
            if shape != list(shape_of(node)):
                old = node.meta["val"]
                key = (old.dtype, old.device, *shape) if all(isinstance(size, int) for size in shape) else node
                if key not in made:
                    made[key] = old.new_empty(shape)
                _set_value(new, made[key])
    for node, operation in view.operations.items():
        if not is_tensor(node):
            _set_value(node_map[node], _remaining_results(operation, node_map))


def _remaining_shape(live: Liveness, node: fx.Node) -> list[Any]:
    return [
        int(live.kept(node, axis).sum()) if isinstance(size, int) else size for axis, size in enumerate(shape_of(node))
    ]


def _set_value(node: fx.Node, value: Any) -> None:
    node.meta = {**node.meta, "val": value}
    node.meta.pop("tensor_meta", None)


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
