"""Channels as an allocation sees them: what a group may lose, and what it loses where so many of its channels go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...dependency import DependencyView
from ...groups import ChannelGroup
from ...sizes import layer_macs
from ...values import attribute
from ..decisions import AS_WANTED, Decision, Scored, Widths, comparable, rounded
from ..latency import layer_channels
from .counts import Counts
from .parts import Part
from .rewards import Costs

__all__ = ["ChannelParts", "layer_costs", "ranked"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ChannelParts:
    """The groups of a network that have scores, in the order of the graph.

    A unit is a channel, or one of each block of a grouped convolution. Its price is the filters that make it: of a group
    that four layers add into, four. That is how the authors count filters, and what averaging the probabilities of layers
    that lose the same channels comes to.

    Attributes:
        view: of the network.
        scored: its groups' scores; the lowest channels of a group go first.
        widths: which floor a group has. Multiples are no affair of single steps, in which a group may lose one channel.
    """

    view: DependencyView
    scored: Scored
    widths: Widths = AS_WANTED

    @property
    def groups(self) -> tuple[ChannelGroup, ...]:
        return tuple(group for group in self.view.groups if group in self.scored.scores)

    def parts(self) -> tuple[Part, ...]:
        """One for every group with scores."""
        return tuple(self._part(group) for group in self.groups)

    def _part(self, group: ChannelGroup) -> Part:
        units = group.size // group.blocks
        floor = max(1, -(-self.widths.floor(group.size) // group.blocks))
        filters = sum(self._is_filter(part.parameter) for part in group.slices if part.role == "producer")
        return Part(group.name, units, max(0, units - floor), max(1, filters) * group.blocks)

    def _is_filter(self, name: str) -> bool:
        """Biases and normalisation make no channel by themselves; a depthwise layer's follow those before it."""
        depthwise = any(layer.depthwise for layer in self.view.layers.get(name, ()))
        return not depthwise and attribute(self.view.module, name).dim() > 1

    def decisions(self, counts: Counts) -> tuple[Decision, ...]:
        """One for every group of the view: those without scores lose nothing."""
        wanted = dict(zip(self.groups, counts, strict=True))
        plain = Widths(minimum=self.widths.minimum, least_share=self.widths.least_share)
        return tuple(
            rounded(group, self.scored.scores[group], wanted[group] * group.blocks, plain)
            if group in wanted
            else Decision(group, 0, np.zeros(group.size, bool), ())
            for group in self.view.groups
        )


def layer_costs(view: DependencyView, decisions: Sequence[Decision]) -> Costs:
    """Multiply-accumulates and weights of the layers after decisions, without those of biases. Of a transposed grouped
    convolution what a group gives counts as it was.
    """
    before, after = layer_channels(view, ()), layer_channels(view, decisions)
    found_macs = found_weights = 0.0
    for name, count in layer_macs(view.module, view.operations).items():
        share = _product(after[name]) / max(1, _product(before[name]))
        found_macs += count * share
        found_weights += attribute(view.module, name).numel() * share
    return Costs(found_macs, found_weights)


def ranked(parts: ChannelParts, budget: int) -> Counts:
    """One ranking over all groups: the lowest units go until the budget is used up, by `comparable` scores."""
    everything = []
    described, relative = parts.parts(), comparable(parts.scored.scores)
    for place, (group, part) in enumerate(zip(parts.groups, described, strict=True)):
        units = np.sort(relative[group].reshape(group.blocks, -1), axis=1).mean(0)
        everything += [(float(unit), place, number) for number, unit in enumerate(units[: part.most])]
    found, left = [0] * len(described), budget
    for _, place, _ in sorted(everything):
        if described[place].price <= left:
            found[place] += 1
            left -= described[place].price
    return tuple(found)


def _product(pair: tuple[int, int]) -> int:
    return pair[0] * pair[1]
