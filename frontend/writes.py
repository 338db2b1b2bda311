"""Which calls of a captured graph write to memory, and which values share it."""

from __future__ import annotations

import torch
from torch import fx

__all__ = ["changed_values", "storage_of", "written_operands", "written_places"]

_SOMETIMES_VIEWS = "dropout feature_dropout alpha_dropout feature_alpha_dropout type_as pin_memory".split()
"""Operators that may give their input itself although their schema does not say so."""

_STATISTICS = {"batch_norm": "training", "instance_norm": "use_input_stats"}
"""Operators that write to the statistics they are given, which their schema does not say, and the flag that makes them."""


def written_places(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """The stored tensors and inputs that calls write to, directly or through a view, and these calls in order."""
    storage = storage_of(graph)
    found: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        for operand in (*written_operands(node), *_statistics(node)):
            root = storage[operand]
            if root.op in ("get_attr", "placeholder"):
                found.setdefault(root, []).append(node)
    return found


def changed_values(graph: fx.Graph) -> frozenset[fx.Node]:
    """Values that are not the same whenever they are read: those in stored tensors and inputs that calls write to, and those
    whose memory a call writes to that others read afterwards, past its result. An activation in place changes nothing where all
    read its result.
    """
    storage, changed = storage_of(graph), set(written_places(graph))
    members: dict[fx.Node, list[fx.Node]] = {}
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        for root in {storage[operand] for operand in written_operands(node)}:
            readers = (order[user] for value in members[root] for user in value.users)
            if max(readers) > order[node]:
                changed.add(root)
        members.setdefault(storage[node], []).append(node)
    names = {root.target for root in changed if root.op == "get_attr"}
    changed.update(node for node in graph.nodes if node.op == "get_attr" and node.target in names)
    return frozenset(node for node in graph.nodes if storage[node] in changed)


def storage_of(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """For every value, the node whose storage it may share."""
    storage: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        source = next(iter(written_operands(node)), None)
        if source is None and node.op == "call_function" and node.all_input_nodes and _may_be_view(node):
            source = node.all_input_nodes[0]
        storage[node] = storage[source] if source is not None and source in storage else node
    return storage


def written_operands(node: fx.Node) -> tuple[fx.Node, ...]:
    """The operands that a call writes to by its schema; its result is then the first of them."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ()
    arguments = node.target._schema.arguments
    written = [argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write]
    return _nodes(node, *written)


def _statistics(node: fx.Node) -> tuple[fx.Node, ...]:
    """What a normalisation in training updates."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return ()
    flag = _STATISTICS.get(node.target.overloadpacket.__name__)
    return _nodes(node, "running_mean", "running_var") if flag is not None and _argument(node, flag) else ()


def _nodes(node: fx.Node, *names: str) -> tuple[fx.Node, ...]:
    """The operands in arguments of a call, those in lists too."""
    given = (_argument(node, name) for name in names)
    listed = [operand for value in given for operand in (value if isinstance(value, list | tuple) else [value])]
    return tuple(operand for operand in listed if isinstance(operand, fx.Node))


def _argument(node: fx.Node, name: str) -> object:
    """An argument of an operator by its name in the schema; None if it is not given."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name == name and position < len(node.args):
            return node.args[position]
    return node.kwargs.get(name)


def _may_be_view(node: fx.Node) -> bool:
    """Returns if a call's result may share storage with its first operand."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True  # ``getitem``, and operators of higher order that nothing is known about.
    results = (result.alias_info is not None for result in node.target._schema.returns)
    return any(results) or node.target.overloadpacket.__name__ in _SOMETIMES_VIEWS
