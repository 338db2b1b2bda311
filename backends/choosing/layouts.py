"""Which layers of a network are computed from planes to planes, and which in blocks of channels.

Kernels that gather what few weights need want planes, all others blocks. Both have kernels for what lies between such
layers. So every group of operations may take either, at its own cost, and every value that is read in the other layout is
laid out anew, once for all of its readers. Which labels cost least altogether is a minimum cut: of the edges from "planes"
to "blocks", a group's cost in planes is cut if it is among the planes, its cost in blocks if not, and a value's if it is
needed beyond the cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from ..graph.fusion import Group, group_nodes
from ..graph.nodes import IMAGES, Convolution, Graph, Node
from ..kernels.base import LayerSpec, Spec
from ..kernels.relayout import PackSpec, UnpackSpec
from ..kernels.tiles import Machine
from ..kernels.transposing import TransposeSpec
from ..kernels.zeros import density
from ..lowering.images import Images
from ..lowering.plan import make_plan, may_lie_in_planes
from ..lowering.steps import Choice, KernelPlan
from .cache import ChoiceCache
from .choice import Winograd, choose
from .cost import Costs

__all__ = ["plan_layouts"]

_DENSE = 0.75
"""The share of weights that are not zero above which no layer is worth planes."""
_CLEAR_SHARE = 0.97
"""What share of the cost in blocks the cheapest layouts may have at most: costs are estimates."""
_PLANES, _BLOCKS = "planes", "blocks"
_IMAGES = IMAGES - {"reindex"}
"""Operations that compute images."""


def plan_layouts(
    plan: KernelPlan,
    winograd: Winograd,
    cost: Costs | None,
    cache: ChoiceCache | None = None,
    figures: dict[LayerSpec, float] | None = None,
) -> tuple[KernelPlan, Choice]:
    """`plan`, which has all images in blocks, or one with some in planes if that costs clearly less; a kernel for each task.
    What candidates cost is added to `figures`.
    """
    graph, machine = plan.graph, plan.machine
    chosen = choose(plan.tasks, machine, winograd, cost, cache, figures)
    groups = group_nodes(graph)
    able = [group.sink for group in groups if may_lie_in_planes(group, machine)]
    if cost is None or not any(_is_sparse(group) for group in groups if group.sink in able):
        return plan, chosen
    other = make_plan(graph, machine, able)
    network = _Network(graph, machine, groups, cost)
    in_planes = choose(other.tasks, machine, winograd, cost, cache, figures)
    blocks, planes = network.costs((plan, chosen), (other, in_planes))
    found = network.cheapest(able, planes, blocks)
    if not found:
        return plan, chosen
    mixed = make_plan(graph, machine, found)
    return mixed, choose(mixed.tasks, machine, winograd, cost, cache, figures)


def _is_sparse(group: Group) -> bool:
    node = group.anchor
    return node is not None and node.op == "convolution" and density(node.detail_as(Convolution)) < _DENSE


@dataclass(frozen=True)
class _Value:
    """A value that is read, and the kernels that lay it out for its readers.

    Attributes:
        producer: the group that computes it; None if it is plain.
        readers: groups, by their last nodes, and None for what reads it in blocks whatever is chosen.
        to_planes, to_blocks: from the other layout, or plain.
        plain: from planes and from blocks, if somebody reads it so.
    """

    producer: Node | None
    readers: frozenset[Node | None]
    to_planes: Spec
    to_blocks: Spec
    plain: tuple[Spec, Spec] | None

    @property
    def specs(self) -> tuple[Spec, ...]:
        return (self.to_planes, self.to_blocks, *(self.plain or ()))


class _Network:
    """Groups of operations, and who reads whose values."""

    def __init__(self, graph: Graph, machine: Machine, groups: Sequence[Group], cost: Costs) -> None:
        self._graph, self._machine, self._groups, self._cost = graph, machine, groups, cost
        every = [(node, group) for group in groups for node in (*group.scalars, group.anchor or group.sink)]
        self._sink = {node: group.sink for node, group in every if node.op in _IMAGES}

    def costs(self, *plans: tuple[KernelPlan, Choice]) -> list[dict[Node, float]]:
        """Of all groups that each plan computes, by their last nodes; without what lays values out anew.

        Kernels of different plans for the same thing are judged together: a machine has other work from moment to moment.
        """
        steps = [self._steps(plan, choice) for plan, choice in plans]
        rivals = {
            step: tuple(dict.fromkeys(own[step] for own in steps if step in own)) for own in steps for step in own
        }
        groups = list(dict.fromkeys(rivals.values()))
        prices = dict(zip(groups, self._cost(groups), strict=True))
        found = []
        for own in steps:
            total: dict[Node, float] = {}
            for step, spec in own.items():
                group, sink = rivals[step], self._sink[step[0]]
                total[sink] = total.get(sink, 0.0) + prices[group][group.index(spec)]
            found.append(total)
        return found

    def _steps(self, plan: KernelPlan, choice: Choice) -> dict[tuple[Node, int], Spec]:
        """What computes each node, by the node and the number of the kernel among its own."""
        found: dict[tuple[Node, int], Spec] = {}
        seen = Counter[Node]()
        for step in plan.kernels:
            if step.node in self._sink and not isinstance(step.spec, PackSpec | UnpackSpec | TransposeSpec):
                found[step.node, seen[step.node]] = step.layer.chosen(choice) if step.layer else step.spec
                seen[step.node] += 1
        return found

    def cheapest(self, able: Sequence[Node], planes: Mapping[Node, float], blocks: Mapping[Node, float]) -> set[Node]:
        """Those of `able` that are best computed in planes; none unless that costs clearly less than blocks alone."""
        values = list(self._values())
        prices = self._prices([spec for value in values for spec in value.specs])
        total = sum(blocks[sink] for sink in able)
        flow: nx.DiGraph[Any] = nx.DiGraph()
        for sink in able:
            _add(flow, sink, _BLOCKS, planes[sink])
            _add(flow, _PLANES, sink, blocks[sink])
        for value in values:
            total += _connect(flow, value, frozenset(able), prices)
        least, (found, _) = nx.minimum_cut(flow, _PLANES, _BLOCKS)
        return set(found) & set(able) if least < _CLEAR_SHARE * total else set()

    def _prices(self, specs: Sequence[Spec]) -> dict[Spec, float]:
        different = list(dict.fromkeys(specs))
        return dict(zip(different, (row[0] for row in self._cost([[spec] for spec in different])), strict=True))

    def _values(self) -> Iterator[_Value]:
        """Of more than one pixel: those of one lie in planes as they do in blocks."""
        images = Images(self._graph, self._machine)
        for node, readers in self._readers().items():
            if node.image_shape[2:] == (1, 1):
                continue
            channels, lanes = node.image_shape[1], self._machine.lanes(node.dtype)
            blocks, planes = images.blocks_view(node, -(-channels // lanes), lanes), images.planes_view(node, channels)
            producer = self._sink.get(node) if node.op in _IMAGES else None
            if producer is None:
                both: tuple[Spec, Spec] = (
                    PackSpec(channels, node.shape, planes),
                    PackSpec(channels, node.shape, blocks),
                )
            else:
                both = TransposeSpec(blocks, planes, channels), TransposeSpec(planes, blocks, channels)
            plain = UnpackSpec(planes, channels, node.shape, False), UnpackSpec(blocks, channels, node.shape, False)
            read = frozenset(reader for reader in readers if reader is None or reader.op in _IMAGES)
            asked = len(read) < len(readers) or node in self._graph.outputs
            yield _Value(producer, read, *both, plain if asked and producer is not None else None)

    def _readers(self) -> dict[Node, set[Node | None]]:
        """Of every image, the groups that read it; what renames channels is read through."""
        found: dict[Node, set[Node | None]] = {}
        for group in self._groups:
            members = {*group.scalars, group.anchor or group.sink}
            for node in members:
                for source in node.inputs:
                    if source in members or source.op == "constant" or node.op == "reindex":
                        continue
                    if source.is_image or node.op in _IMAGES:
                        reader = None if node.op == "flatten" else group.sink
                        found.setdefault(_origin(source), set()).add(reader)
        for node in self._graph.outputs:
            if node.is_image:
                found.setdefault(_origin(node), set())
        return found


def _origin(node: Node) -> Node:
    while node.op == "reindex":
        node = node.inputs[0]
    return node


def _add(flow: nx.DiGraph[Any], begin: Any, end: Any, capacity: float) -> None:
    before = flow.edges[begin, end]["capacity"] if flow.has_edge(begin, end) else 0.0
    flow.add_edge(begin, end, capacity=before + capacity)


def _connect(flow: nx.DiGraph[Any], value: _Value, able: frozenset[Node], prices: Mapping[Spec, float]) -> float:
    """Adds what a value costs that is read in the other layout; returns what it costs if all is in blocks."""
    producer: Any = value.producer if value.producer in able else _BLOCKS
    readers: list[Any] = [reader if reader in able else _BLOCKS for reader in value.readers]
    cost = 0.0
    if value.plain is not None:
        cost += prices[value.plain[1]]
        if producer is not _BLOCKS:
            _add(flow, producer, _BLOCKS, prices[value.plain[0]])
            _add(flow, _PLANES, producer, prices[value.plain[1]])
    # Once for all readers: any of them beyond the cut takes the value's own node with it.
    needs_planes, needs_blocks = ("planes of", value), ("blocks of", value)
    _add(flow, needs_planes, producer, prices[value.to_planes])
    for reader in readers:
        if reader is not _BLOCKS:
            flow.add_edge(reader, needs_planes)
    if value.producer is None or producer is not _BLOCKS:
        _add(flow, _PLANES if value.producer is None else producer, needs_blocks, prices[value.to_blocks])
        for reader in readers:
            flow.add_edge(needs_blocks, reader)
    if value.producer is None and readers:
        cost += prices[value.to_blocks]
    return cost
