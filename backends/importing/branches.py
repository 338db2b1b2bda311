"""``torch.cond``: both branches are computed, and one is taken.

Branches have no effects, so taking values is what running one of them gives. It costs both, and a kernel that could stop the
program on numbers that a branch was to keep away, which is a division of integers, is refused there.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from .unsupported import UnsupportedError

__all__ = ["inline_branches"]

A = torch.ops.aten
_COND = torch.ops.higher_order.cond
_DIVISIONS = {A.div, A.floor_divide, A.remainder, A.fmod, A.div_, A.floor_divide_, A.remainder_, A.fmod_}


def inline_branches(program: ExportedProgram) -> None:
    """Replaces every ``torch.cond`` of `program` by both of its branches, in place; those within branches, too.

    Raises:
        UnsupportedError: a branch divides integers.
    """
    module = program.graph_module
    while True:
        node = next((node for node in module.graph.nodes if node.target is _COND), None)
        if node is None:
            break
        _inline(program, module, node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _inline(program: ExportedProgram, module: fx.GraphModule, node: fx.Node) -> None:
    condition, *branches = node.args[:3]
    operands = node.args[3] if len(node.args) > 3 else ()
    graph = module.graph
    with graph.inserting_before(node):
        results = [_copied(program, module, node, branch, operands) for branch in branches]  # type: ignore[arg-type]
        chosen = [_chosen(graph, condition, *both) for both in zip(*results, strict=True)]
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(chosen[user.args[1]])  # type: ignore[index]
            graph.erase_node(user)
    graph.erase_node(node)


def _chosen(graph: fx.Graph, condition: Any, first: Any, second: Any) -> Any:
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return first  # Export has made sure that what is no tensor is the same.
    if not isinstance(condition, fx.Node):
        return first if condition else second
    found = graph.call_function(A.where.self, (condition, first, second))
    found.meta["val"] = first.meta["val"]
    return found


def _copied(
    program: ExportedProgram, module: fx.GraphModule, node: fx.Node, branch: fx.Node, operands: tuple[Any, ...]
) -> list[Any]:
    """The nodes of a branch before `node`, and what they give."""
    body: fx.GraphModule = getattr(module, str(branch.target))
    inner = iter(operands)
    values: dict[fx.Node, Any] = {}
    for part in body.graph.nodes:
        if part.op == "placeholder":
            values[part] = next(inner)
        elif part.op == "output":
            results = fx.map_arg(part.args[0], values.__getitem__)
            return list(results) if isinstance(results, list | tuple) else [results]
        elif part.op == "get_attr":
            name = f"{branch.target}_{part.target}".replace(".", "_")
            if not hasattr(module, name):
                module.add_module(name, getattr(body, str(part.target)))
            values[part] = module.graph.get_attr(name)
        else:
            if _divides_integers(part):
                why = "divides integers, perhaps by a zero that the other branch is for, and compiled code runs both"
                raise UnsupportedError(part, program, why, "divide floating-point numbers there")
            values[part] = module.graph.node_copy(part, values.__getitem__)
            values[part].meta.setdefault("stack_trace", node.meta.get("stack_trace"))
    return []


def _divides_integers(node: fx.Node) -> bool:
    value = node.meta.get("val")
    packet = getattr(node.target, "overloadpacket", None)
    return packet in _DIVISIONS and isinstance(value, Tensor) and not value.is_floating_point()
