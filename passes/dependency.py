"""The dependency view: which channels of a graph belong together, as data and as a networkx graph.

A *channel group* is a set of channels, each of which is a bundle of positions on several axes that can only be removed
together: a convolution's weight row, its bias, its BatchNorm entries, and the same in every layer it is added to. The
groups are the connected components of the index maps between axis classes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import fx

from ..frontend.base.limits import check_limit
from .axes import Axes, AxesBuilder, Freeze
from .layers import Layer
from .operations import layers_of, operations_of
from .outcome import Barrier
from .rules import rule_of
from .values import MUTATED, Operation, attribute, is_static, is_tensor, operator_name, shape_of, source_line

__all__ = ["ChannelGroup", "DependencyView", "Slices", "dependency_view"]

Index = NDArray[np.int64]

_MAKING = tuple(f"aten.{name}" for name in ("add", "sub", "mul", "cat", "stack", "expand", "expand_as", "repeat"))

_ARRANGING = tuple(f"aten.{name}" for name in ("unsqueeze", "view", "reshape", "to", "_to_copy"))
"""Between a scale of one axis, such as ``weight[:, None, None]``, and what it scales."""


@dataclass(frozen=True, eq=False)
class Slices:
    """The part of one parameter that belongs to a group: for channel i, the positions ``positions[i]`` of `axis`."""

    parameter: str
    axis: int
    role: str
    """``producer``: makes the channel; ``consumer``: reads it; ``statistic``: belongs to it, such as a running mean."""
    positions: Index
    """channels x positions a channel; -1 where a channel has fewer."""


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that are interchangeable units of pruning.

    Attributes:
        name: the first parameter that makes them.
        size: number of channels.
        slices: the parameter slices of every channel.
        values: graph nodes that have these channels.
        reason: why nothing may be removed, or None.
        blocks: channels are cut into this many equal blocks that must lose equally many (grouped convolution).
        cost: scalar parameters one channel stands for.
        classes: numbers of the axis classes it lives on.
    """

    name: str
    size: int
    slices: tuple[Slices, ...]
    values: tuple[str, ...]
    reason: str | None
    blocks: int
    cost: int
    classes: tuple[int, ...]

    @property
    def prunable(self) -> bool:
        """Returns if channels of the group may be removed at all."""
        return self.reason is None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters it touches, with axis and role."""
        return tuple(f"{part.parameter}[{part.axis}] {part.role}" for part in self.slices)


@dataclass(frozen=True, eq=False)
class DependencyView:
    """A canonical module with its operators, its axis classes, and what follows from them."""

    module: fx.GraphModule
    operations: dict[fx.Node, Operation]
    axes: Axes

    @cached_property
    def graph(self) -> nx.MultiDiGraph:
        """Axis classes as nodes, index maps and mixing operators as edges, all attributes plain values.

        Node attributes: label, size, frozen, reason, values, parameters. Edge attributes: kind (``gather``,
        ``product``, ``grouped``, ``mixes``), operator, node. Index maps themselves are in ``axes``.
        """
        return _networkx(self.axes)

    @cached_property
    def stored(self) -> dict[str, fx.Node]:
        """The node that reads each stored tensor, by the tensor's name."""
        return {str(node.target): node for node in self.module.graph.nodes if node.op == "get_attr" and is_tensor(node)}

    @cached_property
    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """By the name of a stored weight, the convolution or linear layer that each call with it is, in order."""
        return layers_of(self.operations)

    @cached_property
    def _calls(self) -> dict[str, fx.Node]:
        return {node.name: node for node in self.operations}

    def located(self, reason: str) -> str:
        """A reason with the place of the call that it names in quotes, ``... 'softmax_1' at net.py:12``."""
        quoted = re.search(r"'([^']+)'", reason)
        node = self._calls.get(quoted[1]) if quoted else None
        place = _place(node) if node is not None else ""
        return f"{reason[: quoted.end()]}{place}{reason[quoted.end() :]}" if quoted and place else reason

    @cached_property
    def components(self) -> _Components:
        """Which positions can only go together."""
        return _resolved_components(self.axes)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """All groups with at least one parameter that makes their channels, in the order of the graph."""
        return _groups(self)

    @cached_property
    def enclosed(self) -> dict[fx.Node, tuple[str, ...]]:
        """Calls that run a graph of their own, such as ``torch.cond``, with the weights they give to it."""
        return {
            node: weights
            for node in self.operations
            if isinstance(node.target, torch._ops.HigherOrderOperator)
            and (weights := tuple(str(n.target) for n in node.all_input_nodes if n.op == "get_attr" and _weighs(n)))
        }

    @cached_property
    def barriers(self) -> tuple[Barrier, ...]:
        """Operators that keep channels in place, with the parameters whose channels they keep."""
        return _barriers(self)


def _weighs(node: fx.Node) -> bool:
    """Returns if a stored tensor is a matrix or kernel."""
    return is_tensor(node) and len(shape_of(node)) > 1


def _place(node: fx.Node) -> str:
    """The line of the model's code that makes a call; the layer, where all of that is torch's own."""
    line = source_line(node)
    if line and not re.search(r"[/\\]torch[/\\]", line):
        return f" at {line}"
    layers = list(node.meta.get("nn_module_stack", {}).values())
    return f" in layer '{layers[-1][0]}'" if layers and layers[-1][0] else ""


def dependency_view(module: fx.GraphModule) -> DependencyView:
    """Asks every rule how axes correspond. `module` must be canonical (see `passes.canonicalize`)."""
    _check_extents(module)
    operations = operations_of(module)
    builder = AxesBuilder()
    for node in module.graph.nodes:
        if node in operations:
            operation = operations[node]
            rule = rule_of(operation)
            builder.begin(operation)
            rule.relate(operation, builder)
            builder.end(rule.reason(operation))
        elif node.op == "placeholder" and is_tensor(node):
            builder.interface(node, node, "the model's input keeps its shape")
        elif node.op == "output":
            for value in node.all_input_nodes:
                if is_tensor(value):
                    builder.interface(node, value, "the model's output keeps its shape")
        if node.meta.get(MUTATED) and is_tensor(node):
            builder.interface(node, node, "an in-place operator writes to memory that it shares")
    return DependencyView(module, operations, builder.finish(module.graph))


def _check_extents(module: fx.GraphModule) -> None:
    """Raises InputError for an axis that has more positions than can be followed one by one."""
    for node in module.graph.nodes:
        for size in filter(is_static, shape_of(node) if is_tensor(node) else ()):
            check_limit("positions", size, f"an axis of '{node.name}'")


def _networkx(axes: Axes) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    used = {number for step in axes.gathers for number in (step.source, step.target)}
    used |= {number for step in axes.products for number in (step.flat, *step.factors)}
    used |= {number for mix in axes.mixes for number in (mix.source, mix.target)}
    used |= set(axes.producers) | set(axes.consumers)
    for number in sorted(used):
        members = axes.members[number]
        stored = [f"{node.target}[{axis}]" for node, axis in members if node.op == "get_attr"]
        values = [node.name for node, axis in members if node.op != "get_attr" and isinstance(axis, int)]
        reasons = [freeze.reason for freeze in axes.freezes.get(number, []) if freeze.reason]
        graph.add_node(
            number,
            label=(stored or values or ["factor"])[0],
            size=axes.sizes[number],
            frozen=axes.frozen(number),
            reason=reasons[0] if reasons else "",
            values=values,
            parameters=stored,
        )
    for gather in axes.gathers:
        _connect(graph, gather.source, gather.target, "gather", gather.node)
    for product in axes.products:
        for factor in product.factors:
            _connect(graph, product.flat, factor, "product", product.node)
    for grouped in axes.grouped:
        _connect(graph, grouped.source, grouped.target, "grouped", grouped.node)
    for mix in axes.mixes:
        if mix.source != mix.target:
            _connect(graph, mix.source, mix.target, "mixes", mix.operation.node)
    return graph


def _connect(graph: nx.MultiDiGraph, source: int, target: int, kind: str, node: fx.Node) -> None:
    if source in graph and target in graph:
        graph.add_edge(source, target, kind=kind, operator=operator_name(node), node=node.name)


# Groups ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Components:
    """Connected components of positions. Position p of class c is atom ``start[c] + p``."""

    start: Index
    label: Index
    owner: Index
    frozen: NDArray[np.bool_]
    """By component."""


def _components(axes: Axes, units: dict[int, int]) -> _Components:
    """`units` says for every flat class of a reshape which factor its channels follow (place in the product)."""
    sizes = np.asarray(axes.sizes, np.int64)
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(start[-1])
    check_limit("positions", total, "the model's axes together")
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for gather in axes.gathers:
        rows.append(start[gather.source] + gather.source_index)
        columns.append(start[gather.target] + gather.target_index)
    for number, labels in axes.bundles:
        _, first, which = np.unique(labels, return_index=True, return_inverse=True)
        rows.append(start[number] + np.arange(labels.size))
        columns.append(start[number] + first[which])
    for place, product in enumerate(axes.products):
        if place in units:
            position = np.indices(product.sizes).reshape(len(product.sizes), -1)[units[place]]
            rows.append(start[product.flat] + np.arange(position.size))
            columns.append(start[product.factors[units[place]]] + position)
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = coo_matrix((np.ones(row.size, np.int8), (row, column)), shape=(total, total))
    count, label = connected_components(matrix, directed=False)
    label = label.astype(np.int64)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    frozen_class = np.array([axes.frozen(number) for number in range(len(sizes))], bool)
    frozen = np.zeros(count, bool)
    frozen[label[frozen_class[owner]]] = True
    return _Components(start, label, owner, frozen)


def _resolved_components(axes: Axes) -> _Components:
    """Decides which factor of every product its channels follow: the outermost that is not held in place."""
    loose = _components(axes, {})
    _spread_frozen(axes, loose)
    units: dict[int, int] = {}
    for place, product in enumerate(axes.products):
        free = [
            i for i, size in enumerate(product.sizes) if size > 1 and not _all_frozen(axes, loose, product.factors[i])
        ]
        if free and not _all_frozen(axes, loose, product.flat):
            units[place] = free[0]
    components = _components(axes, units)
    _spread_frozen(axes, components)
    return components


def _spread_frozen(axes: Axes, components: _Components) -> None:
    """A product whose factors are all held is held, and the factors of a held product are: to a fixpoint."""
    changed = True
    while changed:
        changed = False
        for product in axes.products:
            real = [factor for factor, size in zip(product.factors, product.sizes, strict=True) if size > 1]
            held = _all_frozen(axes, components, product.flat)
            factors_held = all(_all_frozen(axes, components, factor) for factor in real)
            if held == factors_held:
                continue
            changed = True
            for number in [product.flat, *real]:
                components.frozen[_labels(components, number)] = True


def _labels(components: _Components, number: int) -> Index:
    """The component of every position of a class."""
    labels: Index = components.label[components.start[number] : components.start[number + 1]]
    return labels


def _all_frozen(axes: Axes, components: _Components, number: int) -> bool:
    return axes.frozen(number) or bool(components.frozen[_labels(components, number)].all())


def _groups(view: DependencyView) -> tuple[ChannelGroup, ...]:
    axes = view.axes
    components = view.components
    channels = _channels(components, len(axes.sizes))
    reasons = _frozen_reasons(axes, components)
    groups = []
    for classes, labels in channels:
        producers = [(number, axis) for number in classes for axis in axes.producers.get(number, [])]
        if producers:
            groups.append(_group(view, components, classes, labels, reasons))
    place = {name: number for number, name in enumerate(view.stored)}
    return _distinctly_named(sorted(groups, key=lambda group: place.get(group.name, 0)))


def _distinctly_named(groups: list[ChannelGroup]) -> tuple[ChannelGroup, ...]:
    """A weight whose rows fall into several groups (a slice of them is added elsewhere) gives its name to none alone."""
    makers = Counter(group.name for group in groups)
    seen: Counter[str] = Counter()
    named = []
    for group in groups:
        name = group.name
        if makers[name] > 1:
            part = next(part for part in group.slices if part.parameter == name and part.role == "producer")
            used = part.positions[part.positions >= 0]
            name = f"{name}[{int(used.min())}:{int(used.max()) + 1}]"
        seen[name] += 1
        named.append(replace(group, name=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return tuple(named)


def _channels(components: _Components, classes: int) -> list[tuple[tuple[int, ...], Index]]:
    """Components that live on the same classes in the same way: (classes, their labels in order of appearance)."""
    generator = np.random.default_rng(0)
    weight = generator.integers(1, 2**62, size=classes, dtype=np.uint64)
    signature = np.zeros(len(components.frozen), np.uint64)
    np.add.at(signature, components.label, weight[components.owner])
    first = np.full(len(components.frozen), len(components.label))
    np.minimum.at(first, components.label, np.arange(len(components.label)))
    order = np.argsort(first, kind="stable")
    by_atom = np.argsort(components.label, kind="stable")
    bounds = np.searchsorted(components.label[by_atom], np.arange(len(components.frozen) + 1))
    _, where, inverse = np.unique(signature[order], return_index=True, return_inverse=True)
    members = np.split(order[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse))[:-1])
    result = []
    for labels in members:
        atoms = by_atom[bounds[labels[0]] : bounds[labels[0] + 1]]
        result.append((tuple(np.unique(components.owner[atoms]).tolist()), labels))
    return [result[i] for i in np.argsort(where)]


def _frozen_reasons(axes: Axes, components: _Components) -> dict[int, Freeze]:
    """For every component that holds a frozen position, the most telling reason."""

    def telling(freeze: Freeze) -> tuple[bool, str]:
        return freeze.barrier, freeze.reason

    reasons: dict[int, Freeze] = {}
    for number, freezes in axes.freezes.items():
        best = max(freezes, key=telling)
        for label in np.unique(_labels(components, number)).tolist():
            if label not in reasons or telling(best) > telling(reasons[label]):
                reasons[label] = best
    return reasons


def _group(
    view: DependencyView, components: _Components, classes: tuple[int, ...], labels: Index, reasons: dict[int, Freeze]
) -> ChannelGroup:
    axes = view.axes
    rank = {int(label): place for place, label in enumerate(labels)}
    slices: list[Slices] = []
    values: list[str] = []
    for number in classes:
        positions = _positions_by_channel(_labels(components, number), rank, len(labels))
        makers, readers = set(axes.producers.get(number, [])), set(axes.consumers.get(number, []))
        for node, axis in axes.members[number]:
            if node.op == "get_attr":
                makes = (node, axis) in makers or _makes_values(view.module, node)
                role = "producer" if makes else "consumer" if (node, axis) in readers else "statistic"
                slices.append(Slices(str(node.target), axis, role, positions))
            elif isinstance(axis, int):
                values.append(node.name)
    frozen = components.frozen[labels]
    reason = None
    if frozen.any():
        held = reasons.get(int(labels[np.flatnonzero(frozen)[0]])) or _nearest_freeze(
            view, components, classes, reasons
        )
        reason = view.located(held.told) if held else "a reshape holds these channels with others that stay"
    producer = next(part for part in slices if part.role == "producer")
    blocks = max([step.groups for step in axes.grouped if {step.source, step.target} & set(classes)], default=1)
    return ChannelGroup(
        producer.parameter,
        len(labels),
        tuple(slices),
        tuple(values),
        reason,
        blocks if len(labels) % blocks == 0 else 1,
        _cost(view, slices),
        classes,
    )


def _nearest_freeze(
    view: DependencyView, components: _Components, classes: tuple[int, ...], reasons: dict[int, Freeze]
) -> Freeze | None:
    """What holds channels through a reshape: a freeze on a factor of theirs, or on the product they are a factor of."""
    seen, pending = set(classes), list(classes)
    while pending:
        number = pending.pop(0)
        for label in _labels(components, number).tolist():
            if label in reasons:
                return reasons[label]
        for product in view.axes.products:
            joined = {product.flat, *product.factors}
            if number in joined:
                pending.extend(joined - seen)
                seen |= joined
    return None


def _makes_values(module: fx.GraphModule, node: fx.Node) -> bool:
    """Returns if a trained tensor goes into the channels entry by entry: class tokens, position embeddings, scales."""
    trained = isinstance(attribute(module, str(node.target)), torch.nn.Parameter)
    readers = list(node.users)
    for reader in readers:
        if operator_name(reader) in _ARRANGING:
            readers.extend(reader.users)
    return trained and any(reader.op == "call_function" and operator_name(reader) in _MAKING for reader in readers)


def _positions_by_channel(span: Index, rank: dict[int, int], channels: int) -> Index:
    """For every channel, the positions of a class it occupies, padded with -1."""
    lookup = np.full(int(span.max()) + 1 if span.size else 1, -1, np.int64)
    known = np.array([label for label in rank if label < lookup.size], np.int64)
    lookup[known] = [rank[int(label)] for label in known]
    channel = lookup[span]
    where = np.flatnonzero(channel >= 0)
    owner = channel[where]
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=channels)
    width = int(counts.max()) if counts.size else 0
    positions = np.full((channels, width), -1, np.int64)
    column = np.arange(where.size) - np.repeat(np.cumsum(counts) - counts, counts)
    positions[owner[order], column] = where[order]
    return positions


def _cost(view: DependencyView, slices: list[Slices]) -> int:
    """Scalar parameters of the first channel, over all slices."""
    total = 0
    for part in slices:
        if part.role != "statistic" and part.positions.shape[1]:
            shape = shape_of(view.stored[part.parameter])
            per_position = int(np.prod(shape)) // max(1, int(shape[part.axis]))
            total += per_position * int((part.positions[0] >= 0).sum())
    return total


def _barriers(view: DependencyView) -> tuple[Barrier, ...]:
    """Freezes by an operator that reach a parameter's output channels."""
    axes = view.axes
    components = view.components
    makers: dict[int, set[str]] = {}
    for number, producers in axes.producers.items():
        for label in np.unique(_labels(components, number)).tolist():
            makers.setdefault(label, set()).update(
                str(node.target) for node, _ in producers if str(node.target).endswith("weight")
            )
    found: dict[tuple[fx.Node, str], set[str]] = {}
    for number, freezes in axes.freezes.items():
        if not axes.sizes[number]:
            continue
        held: set[str] = set()
        for label in np.unique(_labels(components, number)).tolist():
            held |= makers.get(label, set())
        for freeze in freezes:
            if held and freeze.barrier:
                found.setdefault((freeze.node, freeze.reason), set()).update(held)
    for node, names in view.enclosed.items():
        found.setdefault((node, rule_of(view.operations[node]).reason(view.operations[node])), set()).update(names)
    return tuple(
        Barrier(node.name, operator_name(node), reason, source_line(node), tuple(sorted(held)))
        for (node, reason), held in found.items()
    )
