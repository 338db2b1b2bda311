"""Channel groups: channels that can only be removed together, with every slice of a parameter that belongs to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .axes import Axes, Freeze
from .components import Components
from .values import attribute, operator_name, shape_of

__all__ = ["INPUT_STAYS", "OUTPUT_STAYS", "ChannelGroup", "Slices", "channel_groups"]

INPUT_STAYS, OUTPUT_STAYS = "the model's input keeps its shape", "the model's output keeps its shape"
"""Why channels stay that whoever calls the model gives or gets: nobody would have them go."""

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
    def is_interface(self) -> bool:
        """Whether its channels are what the model takes or gives, such as a classifier's classes."""
        return self.reason in (INPUT_STAYS, OUTPUT_STAYS)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters it touches, with axis and role."""
        return tuple(f"{part.parameter}[{part.axis}] {part.role}" for part in self.slices)


def channel_groups(
    module: fx.GraphModule, axes: Axes, components: Components, stored: Mapping[str, fx.Node]
) -> tuple[ChannelGroup, ...]:
    """All groups with at least one parameter that makes their channels, in the order of `stored`.

    Args:
        module: the graph they are about.
        axes: of its values.
        components: of these axes.
        stored: by the name of each stored tensor, the node that reads it.
    """
    grouping = _Grouping(module, axes, components, stored, _frozen_reasons(axes, components))
    groups = [
        grouping.group(classes, labels)
        for classes, labels in _channels(components, len(axes.sizes))
        if any(axes.producers.get(number) for number in classes)
    ]
    place = {name: number for number, name in enumerate(stored)}
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


def _channels(components: Components, classes: int) -> list[tuple[tuple[int, ...], Index]]:
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


def _frozen_reasons(axes: Axes, components: Components) -> dict[int, Freeze]:
    """For every component that holds a frozen position, the most telling reason."""

    def telling(freeze: Freeze) -> tuple[bool, str]:
        return freeze.barrier, freeze.reason

    reasons: dict[int, Freeze] = {}
    for number, freezes in axes.freezes.items():
        best = max(freezes, key=telling)
        for label in np.unique(components.labels(number)).tolist():
            if label not in reasons or telling(best) > telling(reasons[label]):
                reasons[label] = best
    return reasons


@dataclass(frozen=True, eq=False)
class _Grouping:
    """What a group is read from."""

    module: fx.GraphModule
    axes: Axes
    components: Components
    stored: Mapping[str, fx.Node]
    reasons: Mapping[int, Freeze]
    """Why components stay, by component."""

    def group(self, classes: tuple[int, ...], labels: Index) -> ChannelGroup:
        """The channels that are the components `labels`, on the axis classes `classes`."""
        slices, values = self._members(classes, labels)
        producer = next(part for part in slices if part.role == "producer")
        grouped = (step for step in self.axes.grouped if {step.source, step.target} & set(classes))
        blocks = max((step.groups for step in grouped), default=1)
        return ChannelGroup(
            producer.parameter,
            len(labels),
            slices,
            values,
            self._reason(classes, labels),
            blocks if len(labels) % blocks == 0 else 1,
            self._cost(slices),
            classes,
        )

    def _members(self, classes: tuple[int, ...], labels: Index) -> tuple[tuple[Slices, ...], tuple[str, ...]]:
        """The slices of parameters that belong to the channels, and the names of the values that have them."""
        rank = {int(label): place for place, label in enumerate(labels)}
        slices: list[Slices] = []
        values: list[str] = []
        for number in classes:
            positions = _positions_by_channel(self.components.labels(number), rank, len(labels))
            makers, readers = set(self.axes.producers.get(number, [])), set(self.axes.consumers.get(number, []))
            for node, axis in self.axes.members[number]:
                if node.op == "get_attr":
                    makes = (node, axis) in makers or _makes_values(self.module, node)
                    role = "producer" if makes else "consumer" if (node, axis) in readers else "statistic"
                    slices.append(Slices(str(node.target), axis, role, positions))
                elif isinstance(axis, int):
                    values.append(node.name)
        return tuple(slices), tuple(values)

    def _reason(self, classes: tuple[int, ...], labels: Index) -> str | None:
        """Why the channels stay, None if they may go."""
        frozen = self.components.frozen[labels]
        if not frozen.any():
            return None
        held = self.reasons.get(int(labels[np.flatnonzero(frozen)[0]])) or self._nearest_freeze(classes)
        return held.told if held else "a reshape holds these channels with others that stay"

    def _nearest_freeze(self, classes: tuple[int, ...]) -> Freeze | None:
        """What holds channels through a reshape: a freeze on a factor of theirs, or on the product they are a factor of."""
        seen, pending = set(classes), list(classes)
        while pending:
            number = pending.pop(0)
            for label in self.components.labels(number).tolist():
                if label in self.reasons:
                    return self.reasons[label]
            for product in self.axes.products:
                joined = {product.flat, *product.factors}
                if number in joined:
                    pending.extend(joined - seen)
                    seen |= joined
        return None

    def _cost(self, slices: tuple[Slices, ...]) -> int:
        """Scalar parameters of the first channel, over all slices."""
        total = 0
        for part in slices:
            if part.role != "statistic" and part.positions.shape[1]:
                shape = shape_of(self.stored[part.parameter])
                per_position = int(np.prod(shape)) // max(1, int(shape[part.axis]))
                total += per_position * int((part.positions[0] >= 0).sum())
        return total


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
