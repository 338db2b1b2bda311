"""The graph module that every part of this package hands on.

It is a ``torch.fx.GraphModule`` in torch.export's training IR whose ``train()`` and ``eval()`` work: they set the
flag arguments of dropout and normalisation nodes, because a captured graph has no submodules that could listen.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import fx

__all__ = [
    "CapturedModule",
    "captured_module",
    "cloned",
    "copy_calling_convention",
    "inline_grad_modes",
    "with_own_graph",
]

_FLAGS = ("training", "train", "use_input_stats")


class CapturedModule(fx.GraphModule):
    """A captured or rewritten model. Parameters keep the names they had in the original module."""

    def train(self, mode: bool = True) -> CapturedModule:
        """Switches dropout, batch normalisation and recurrent dropout to training (or inference) behaviour."""
        super().train(mode)
        changed = False
        for node in self.graph.nodes:
            changed |= _set_training_flag(node, mode)
        if changed:
            self.recompile()
        return self

    def eval(self) -> CapturedModule:
        """The same as ``train(False)``."""
        return self.train(False)


def captured_module(root: Any, graph: fx.Graph, meta: dict[str, Any] | None = None) -> CapturedModule:
    """Makes a module, in inference mode, from `graph` and the tensors it reads from `root` (a module or a dict)."""
    module = CapturedModule(root, graph, class_name="CapturedModule")
    module.meta.update(copy.copy(meta) if meta else {})
    return module.eval()


def with_own_graph(module: fx.GraphModule) -> CapturedModule:
    """A module on the same tensors with a graph of its own, so that its mode is its own."""
    return captured_module(module, _copied_graph(module), module.meta)


def cloned(module: fx.GraphModule) -> CapturedModule:
    """A copy with a graph and tensors of its own; tensors with several names stay one."""
    copies: dict[int, torch.Tensor] = {}
    tensors: dict[str, Any] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            value: Any = module
            for part in name.split("."):
                value = getattr(value, part)
            if isinstance(value, torch.Tensor) and id(value) not in copies:
                copy_ = value.detach().clone()
                trained = isinstance(value, torch.nn.Parameter)
                copies[id(value)] = torch.nn.Parameter(copy_, value.requires_grad) if trained else copy_
            tensors[name] = copies.get(id(value), value)
    return captured_module(tensors, _copied_graph(module), module.meta)


def _copied_graph(module: fx.GraphModule) -> fx.Graph:
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    copy_calling_convention(module.graph, graph)
    return graph


def copy_calling_convention(source: fx.Graph, target: fx.Graph) -> None:
    """Makes `target` take and give its values in the containers that `source` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch copies its own tree specifications in a deprecated way.
        target._codegen = copy.deepcopy(source._codegen)


def _set_training_flag(node: fx.Node, mode: bool) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name not in _FLAGS or not isinstance(argument.type, torch.BoolType):
            continue
        if _argument(node, "running_mean", "absent") is None:
            return False  # Without stored statistics a norm always uses those of its input.
        return _set_argument(node, position, argument.name, mode)
    return False


def _argument(node: fx.Node, name: str, missing: Any) -> Any:
    """An argument by its name in the schema; `missing` if the operator has none of that name."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            return node.args[position] if position < len(node.args) else node.kwargs.get(name)
    return missing


def _set_argument(node: fx.Node, position: int, name: str, value: bool) -> bool:
    if name in node.kwargs:
        if node.kwargs[name] == value:
            return False
        node.update_kwarg(name, value)
        return True
    if position >= len(node.args) or node.args[position] == value:
        return False
    node.update_arg(position, value)
    return True


def inline_grad_modes(module: fx.GraphModule) -> None:
    """Puts what stood under ``torch.no_grad()`` into the graph itself; values that leave such a block are detached."""
    graph = module.graph
    for node in list(graph.nodes):
        if node.op != "call_function" or getattr(node.target, "__name__", "") != "wrap_with_set_grad_enabled":
            continue
        enabled, holder, *operands = node.args
        assert isinstance(holder, fx.Node)
        body = getattr(module, str(holder.target))
        inner = dict(zip((n for n in body.graph.nodes if n.op == "placeholder"), operands, strict=True))
        with graph.inserting_before(node):
            results = graph.graph_copy(body.graph, inner)
            if not enabled:
                results = fx.map_arg(results, lambda value: _detached(graph, value))
        for user in list(node.users):
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index, call-overload]
            graph.erase_node(user)
        graph.erase_node(node)
        if not holder.users:
            graph.erase_node(holder)


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    detached = graph.call_function(torch.ops.aten.detach.default, (value,))
    detached.meta = copy.copy(value.meta)
    return detached
