"""The dependency view: which channels of a graph belong together, as data and as a networkx graph.

A *channel group* is a set of channels, each of which is a bundle of positions on several axes that can only be removed
together: a convolution's weight row, its bias, its BatchNorm entries, and the same in every layer it is added to. The
groups are the connected components of the index maps between axis classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..frontend.base.errors import InputError
from ..frontend.base.limits import check_limit
from .axes import Axes, AxesBuilder
from .components import Components, resolved_components
from .groups import INPUT_STAYS, OUTPUT_STAYS, ChannelGroup, channel_groups
from .layers import Layer
from .operations import layers_of, operations_of
from .outcome import Barrier
from .rules import rule_of
from .values import MUTATED, Operation, attribute, is_static, is_tensor, operator_name, shape_of, source_line

__all__ = ["DependencyView", "dependency_view"]


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
    def components(self) -> Components:
        """Which positions can only go together."""
        return resolved_components(self.axes)

    @cached_property
    def groups(self) -> tuple[ChannelGroup, ...]:
        """All groups with at least one parameter that makes their channels, in the order of the graph."""
        found = channel_groups(self.module, self.axes, self.components, self.stored)
        return tuple(replace(group, reason=group.reason and self.located(group.reason)) for group in found)

    def masks(self, drop: Mapping[ChannelGroup, Any]) -> dict[str, torch.Tensor]:
        """Masks that zero channels in all that makes them, so that they can go: weights, biases and the affine part of
        normalisation, of every layer whose outputs are added to one another.

        Args:
            drop: by group, which of its channels go: one boolean each (array, tensor or list), or their numbers.

        Returns:
            Masks by parameter name, boolean, True to keep, as `reconvene.compact` takes them.

        Raises:
            InputError: a group has no such channel, or not as many as there are booleans.
        """
        masks: dict[str, torch.Tensor] = {}
        for group, chosen in drop.items():
            gone = _chosen(group, chosen)
            for part in group.slices if gone.any() else ():
                if part.role == "producer":
                    shape = attribute(self.module, part.parameter).shape
                    mask = masks.setdefault(part.parameter, torch.ones(shape, dtype=torch.bool))
                    positions = part.positions[gone]
                    mask.index_fill_(part.axis, torch.from_numpy(positions[positions >= 0]), False)
        return masks

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


def _chosen(group: ChannelGroup, chosen: Any) -> NDArray[np.bool_]:
    """Channels of a group as one boolean each."""
    given = np.asarray(chosen.detach().cpu() if isinstance(chosen, torch.Tensor) else chosen)
    if given.dtype == np.bool_:
        if given.shape != (group.size,):
            raise InputError(f"{group.name} has {group.size} channels, and {given.size} booleans were given")
        return given
    found = np.zeros(group.size, bool)
    if given.size:
        if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= group.size:
            raise InputError(f"channels of {group.name} are numbers from 0 to {group.size - 1}, or a boolean for each")
        found[given.reshape(-1)] = True
    return found


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
            builder.interface(node, node, INPUT_STAYS)
        elif node.op == "output":
            for value in node.all_input_nodes:
                if is_tensor(value):
                    builder.interface(node, value, OUTPUT_STAYS)
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


def _barriers(view: DependencyView) -> tuple[Barrier, ...]:
    """Freezes by an operator that reach a parameter's output channels."""
    axes = view.axes
    components = view.components
    makers: dict[int, set[str]] = {}
    for number, producers in axes.producers.items():
        for label in np.unique(components.labels(number)).tolist():
            makers.setdefault(label, set()).update(
                str(node.target) for node, _ in producers if str(node.target).endswith("weight")
            )
    found: dict[tuple[fx.Node, str], set[str]] = {}
    for number, freezes in axes.freezes.items():
        if not axes.sizes[number]:
            continue
        held: set[str] = set()
        for label in np.unique(components.labels(number)).tolist():
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
