"""Graphs within the graph that change nothing about what is computed become part of it.

torch.export keeps what stood under ``torch.no_grad()``, under a ``torch.autocast`` that is switched off, and under
checkpointing as a graph of its own, which an operator calls. No rule looks into it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from .writes import written_places

__all__ = ["inline_regions", "place"]


def inline_regions(module: fx.GraphModule) -> None:
    """Puts inert regions, also those within others, into the graph itself; in place.

    Values that leave a region without gradients are detached, and so is what it writes to: PyTorch allows no write to a
    parameter with gradients.
    """
    graph = module.graph
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            found = _inert(node)
            if found is not None:
                _inline(module, node, *found)
                changed = True


def _inert(node: fx.Node) -> tuple[fx.Node, Sequence[Any], bool] | None:
    """For a region that is as good as its content: the node of its graph, its operands, and whether it is detached."""
    if node.op != "call_function" or node.kwargs:
        return None
    name = getattr(node.target, "__name__", "")
    args = node.args
    if name == "wrap_with_set_grad_enabled":
        enabled, holder, *operands = args
        return _holder(holder), operands, not enabled
    if name == "wrap_with_autocast":
        _device, _dtype, enabled, _cache, holder, *operands = args
        return None if enabled else (_holder(holder), operands, False)
    if name in ("wrap", "tag_activation_checkpoint"):
        holder, *operands = args
        return _holder(holder), operands, False
    if name == "invoke_subgraph":
        holder, _identifier, *operands = args
        return _holder(holder), operands, False
    return None


def _holder(node: Any) -> fx.Node:
    assert isinstance(node, fx.Node)
    return node


def _inline(module: fx.GraphModule, node: fx.Node, holder: fx.Node, operands: Sequence[Any], detached: bool) -> None:
    graph = module.graph
    body = getattr(module, str(holder.target))
    # A region within the region is a child of this one, and its name may be taken outside.
    inner: dict[fx.Node, Any] = dict(zip((n for n in body.graph.nodes if n.op == "placeholder"), operands, strict=True))
    for held in [n for n in body.graph.nodes if n.op == "get_attr"]:
        name = _free_name(module, str(held.target))
        value: Any = body
        for part in str(held.target).split("."):
            value = getattr(value, part)
        place(module, name, value)
        with graph.inserting_before(node):
            inner[held] = graph.get_attr(name)
        inner[held].meta = copy.copy(held.meta)
    with graph.inserting_before(node):
        if detached:
            for written in written_places(body.graph):
                inner[written] = _detached(graph, inner[written])
        results = graph.graph_copy(body.graph, inner)
        if detached:
            results = fx.map_arg(results, lambda value: _detached(graph, value))
    for user in list(node.users):
        if _picks(user):
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index, call-overload, arg-type]
            graph.erase_node(user)
    if node.users:
        assert isinstance(results, fx.Node)
        node.replace_all_uses_with(results)
    graph.erase_node(node)
    if not holder.users:
        graph.erase_node(holder)


def _picks(user: fx.Node) -> bool:
    return user.op == "call_function" and getattr(user.target, "__name__", "") == "getitem"


def place(module: torch.nn.Module, name: str, value: Any) -> None:
    """Makes `value` the module's own under `name`: a module, a parameter, or else a buffer."""
    if isinstance(value, torch.nn.Module):
        module.add_module(name, value)
    elif isinstance(value, torch.nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def _names(name: str) -> Iterator[str]:
    yield name
    number = 1
    while True:
        yield f"{name}_{number}"
        number += 1


def _free_name(module: fx.GraphModule, name: str) -> str:
    flat = name.replace(".", "_")
    return next(candidate for candidate in _names(flat) if not hasattr(module, candidate))


def _detached(graph: fx.Graph, value: fx.Node) -> fx.Node:
    detached = graph.call_function(torch.ops.aten.detach.default, (value,))
    detached.meta = copy.copy(value.meta)
    return detached
