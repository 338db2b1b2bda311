"""Groups the graph into kernels: one heavy operation, or none, and the elementwise operations that follow
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .nodes import Graph, Node

__all__ = ["ANCHORS", "Group", "group_nodes"]

ANCHORS = frozenset(
    {"convolution", "transposed", "normalize", "pool", "mean", "largest", "total", "table", "concat", "frame"}
)
"""Operations that produce each output element once, in registers, so that elementwise work can follow for
free.
"""


@dataclass(eq=False)
class Group:
    """Nodes computed by one kernel; `sink` is the only value that leaves it."""

    sink: Node
    anchor: Node | None = None
    scalars: list[Node] = field(default_factory=list)
    """Elementwise nodes, producers first."""


def group_nodes(graph: Graph) -> list[Group]:
    """Groups in execution order.

    Walking backwards, a node joins the group of its readers when they are all elementwise, all in that one
    group, and of its shape. A group takes one anchor, so that of two convolutions that are added the later
    takes the sum.
    """
    group_of: dict[Node, Group] = {}
    outputs = set(graph.outputs)
    groups: list[Group] = []
    for node in reversed(graph.nodes):
        group = None if node in outputs else _group_of_readers(node, graph, group_of)
        if group is None:
            group = Group(node)
            groups.append(group)
        group_of[node] = group
        if node.op in ANCHORS:
            group.anchor = node
        elif node.op == "scalar":
            group.scalars.insert(0, node)
    groups.reverse()
    return groups


def _group_of_readers(node: Node, graph: Graph, group_of: dict[Node, Group]) -> Group | None:
    users = graph.users.get(node, [])
    if not users or any(user.op != "scalar" for user in users):
        return None
    group = group_of[users[0]]
    if any(group_of[user] is not group for user in users) or node.shape != group.sink.shape:
        return None
    if node.op == "scalar" or (node.op in ANCHORS and group.anchor is None):
        return group
    return None
