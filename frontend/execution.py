"""The graph as it is run: layers are called, flags are read from the modules' ``training``, batches are checked.

What passes see, ``module.graph``, holds operators only, with the flags of the current mode. The code of a captured module
is made from a copy of it, in which

- calls that a real layer stands for are calls of that layer, so that its hooks, its mode and what a person changes on it
  hold, and its own checks are made (batch normalisation refuses one value per channel in training);
- other flags that follow the mode are read from the module that wrote them, so that ``part.eval()`` has its effect;
- weights of parts that are no layers are computed first where ``torch.nn.utils.prune`` and its kin want it;
- normalisations outside of layers are called by PyTorch's functions, which make the same checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from .calls import named_arguments
from .layer_kinds import TENSORS
from .layers import Part
from .modes import modes_of, training_flag

__all__ = ["add_parts", "executed_graph", "value_in_mode", "weights_made"]

_CHECKED: dict[Any, tuple[Any, tuple[str, ...]]] = {
    torch.ops.aten.batch_norm.default: (
        F.batch_norm,
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    torch.ops.aten.instance_norm.default: (
        F.instance_norm,
        ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
    ),
    torch.ops.aten.group_norm.default: (F.group_norm, ("input", "num_groups", "weight", "bias", "eps")),
}
"""Operators whose function in torch.nn.functional looks at the sizes first, with the order of its arguments."""


def value_in_mode(training: bool, inference: Any, in_training: Any) -> Any:
    """An argument that differs between the modes."""
    return in_training if training else inference


def weights_made(part: nn.Module) -> None:
    """Lets what computes weights before each call do so: pruning, and norms of weights."""
    for hook in part._forward_pre_hooks.values():
        hook(part, ())


def executed_graph(module: nn.Module, graph: fx.Graph, calls: Mapping[fx.Node, str]) -> fx.Graph:
    """The graph whose code is run; `graph` itself where nothing is to be changed.

    Args:
        module: owns the graph.
        graph: operators only.
        calls: those that a layer stands for, with its path.
    """
    modes = {
        node: found
        for node in graph.nodes
        if (found := modes_of(node)) is not None and found.arguments and node not in calls
    }
    checked = [node for node in graph.nodes if node not in calls and _is_checked(node, node in modes)]
    parts = [path for path, part in module.named_modules() if type(part) is Part and part._parameters]
    if not (calls or modes or checked or parts):
        return graph
    result = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    output = graph.output_node()
    result.graph_copy(graph, copies)
    result.output(fx.map_arg(output.args[0], copies.__getitem__)).meta.update(output.meta)
    result._codegen = graph._codegen
    first = next((node for node in result.nodes if node.op != "placeholder"), None)
    assert first is not None
    with result.inserting_before(first):
        for path in parts:
            result.call_function(weights_made, (result.create_node("get_attr", path),))
    for node, found in modes.items():
        _follow(module, copies[node], found.owner, found.arguments)
    for node in checked:
        copies[node] = _with_function(copies[node])
    for node, path in calls.items():
        _call_layer(copies[node], path)
    for node in reversed(list(result.nodes)):
        if node.op == "get_attr" and not node.users:
            result.erase_node(node)
    return result


def _is_checked(node: fx.Node, in_modes: bool) -> bool:
    """Whether PyTorch's function would look at the sizes of a call: where it uses statistics of its input.

    A group's number of values has passed at the capture where it is fixed. Graphs that were written by hand call operators.
    """
    if node.op != "call_function" or node.target not in _CHECKED or not node.meta.get("stack_trace"):
        return False
    name = training_flag(node)
    if name is None:
        return any(isinstance(size, torch.SymInt) for size in node.meta["val"].shape)
    return in_modes or bool(named_arguments(node)[name])


def _follow(module: nn.Module, node: fx.Node, owner: str, arguments: Mapping[str, tuple[Any, Any]]) -> None:
    """Makes arguments follow ``training`` of the module `owner`."""
    path = f"{owner}.training" if _has_part(module, owner) else "training"
    graph, kwargs = node.graph, {}
    known = named_arguments(node)
    with graph.inserting_before(node):
        training = graph.create_node("get_attr", path)
        for name, (inference, in_training) in arguments.items():
            if name in known:
                plain = inference is False and in_training is True
                chosen = (training, inference, in_training)
                kwargs[name] = training if plain else graph.call_function(value_in_mode, chosen)
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    position = next((p for p, argument in enumerate(schema) if argument.name in kwargs), len(node.args))
    rest = {a.name: known[a.name] for a in schema[position : len(node.args)]}
    node.args, node.kwargs = node.args[:position], {**rest, **node.kwargs, **kwargs}


def _has_part(module: nn.Module, path: str) -> bool:
    for name in path.split("."):
        found = module._modules.get(name)
        if found is None:
            return False
        module = found
    return bool(path)


def _with_function(node: fx.Node) -> fx.Node:
    function, names = _CHECKED[node.target]
    known = named_arguments(node)
    with node.graph.inserting_before(node):
        call = node.graph.call_function(function, tuple(known[name] for name in names))
    return _replaced(node, call)


def _call_layer(node: fx.Node, path: str) -> None:
    values = [
        value for name, value in named_arguments(node).items() if isinstance(value, fx.Node) and name not in TENSORS
    ]
    with node.graph.inserting_before(node):
        call = node.graph.call_module(path, tuple(values))
    _replaced(node, call)


def _replaced(node: fx.Node, call: fx.Node) -> fx.Node:
    call.meta = node.meta
    node.replace_all_uses_with(call)
    node.graph.erase_node(node)
    return call


def add_parts(module: nn.Module, owners: set[str]) -> None:
    """Makes the parts whose ``training`` calls read, where no tensor has made them."""
    for owner in filter(None, owners):
        current = module
        for name in owner.split("."):
            if name not in current._modules:
                if hasattr(current, name):
                    break  # Another attribute has the name; the call follows the whole module.
                current._modules[name] = Part()
            following = current._modules[name]
            assert following is not None
            current = following
