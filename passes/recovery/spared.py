"""What every group of channels can spare, from one run of the dense network over calibration inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from ...frontend.base.progress import track
from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..layers import Layer
from ..rules import layer_of
from ..rules.kernel_blocks import blocks_of
from ..values import Operation, attribute
from .elimination import Elimination, System, eliminate
from .influence import influences
from .offsets import Offset, offset_of
from .sampling import MOST_COLUMNS, columns_of, sampled
from .walk import Walk

__all__ = ["eliminations"]

_ROWS = 10.0
"""Output positions for every number that one reads."""

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Reading:
    """A layer that reads channels of groups.

    Attributes:
        op: its call.
        layer: what the call is.
        channels: by group that it reads: for every input channel, its number in the group, or -1.
    """

    op: Operation
    layer: Layer
    channels: Mapping[ChannelGroup, Index]


def eliminations(
    view: DependencyView, groups: Sequence[ChannelGroup], calls: Sequence[tuple[Any, ...]], ridge: float, seed: int = 0
) -> dict[ChannelGroup, Elimination]:
    """In what order the channels of groups can go, and what that costs. A group that no layer reads is left out.

    Args:
        view: of the canonical module.
        groups: those that may lose channels.
        calls: calibration inputs, the positional inputs of every call.
        ridge: of the layers, as a share of the mean variance of what they read.
        seed: of the positions that are drawn, and of the directions in which the outputs are differentiated.

    Costs are comparable between groups: the mean square by which the network's outputs change, to second order, each output
    of the network by its own variance.
    """
    readings = _readings(view, groups)
    weights = influences(view.module, calls, {reading.op.node: reading.layer.axis for reading in readings}, seed)
    waiting = {group: sum(group in reading.channels for reading in readings) for group in groups}
    systems: dict[ChannelGroup, list[System]] = {group: [] for group in groups}
    found: dict[ChannelGroup, Elimination] = {}
    looking = _Looking(view, Walk(view.module, calls), weights, ridge, torch.Generator().manual_seed(seed))
    for reading in track(readings, "telling what channels cost"):
        for group, parts in looking.systems(reading).items():
            systems[group] += parts
            waiting[group] -= 1
            if not waiting[group]:  # Systems are large: they are used up as soon as they are all there.
                found[group] = eliminate(systems.pop(group), group.size)
    return {group: found[group] for group in groups if group in found}


@dataclass(frozen=True, eq=False)
class _Looking:
    """The dense network, under way."""

    view: DependencyView
    walk: Walk
    weights: Mapping[fx.Node, Tensor]
    ridge: float
    generator: torch.Generator

    def systems(self, reading: _Reading) -> dict[ChannelGroup, list[System]]:
        """Those of one layer, for every group whose channels it reads."""
        op, layer = reading.op, reading.layer
        self.walk.before(op.node)
        sources = self.walk.values(layer.source)
        self.walk.past(op.node)
        centred = isinstance(offset_of(self.view.module, op, layer), Offset)
        values = sources, self.walk.values(op.node)
        first, second = sampled(op, layer, values, _ROWS, self.generator, centred=centred)
        covariance, _, _ = (first + second).covariances
        kernel = blocks_of(attribute(self.view.module, str(layer.weight.target)).detach(), layer).flatten(2).double()
        kernel = kernel * self.weights[op.node].reshape(layer.groups, -1, 1).sqrt()
        return {
            group: list(self._parts(layer, kernel, covariance, torch.from_numpy(channels)))
            for group, channels in reading.channels.items()
        }

    def _parts(self, layer: Layer, kernel: Tensor, covariance: Tensor, channels: Tensor) -> Iterator[System]:
        """One system for every group of the layer that reads such channels."""
        taps = math.prod(layer.taps)
        for place, columns in enumerate(channels.reshape(layer.groups, -1).repeat_interleave(taps, 1)):
            if bool((columns >= 0).any()):
                yield System.of(kernel[place], covariance[place], self.ridge, columns)


def _readings(view: DependencyView, groups: Sequence[ChannelGroup]) -> list[_Reading]:
    """Every layer that mixes channels of the groups, in the order of the graph."""
    owner = np.full(len(view.components.frozen), -1)
    number = np.full(len(view.components.frozen), -1)
    for place, group in enumerate(groups):
        part = next(part for part in group.slices if part.role == "producer")
        labels = view.components.labels(view.axes.of(view.stored[part.parameter], part.axis))
        made = labels[part.positions[:, 0]]
        owner[made], number[made] = place, np.arange(group.size)
    found = []
    for op in view.operations.values():
        layer = layer_of(op)
        if layer is None or layer.depthwise or op.tensor("weight") is None or columns_of(layer) > MOST_COLUMNS:
            continue
        labels = view.components.labels(view.axes.of(layer.source, layer.axis))
        owners = owner[labels]
        channels = {
            groups[place]: np.where(owners == place, number[labels], -1) for place in np.unique(owners[owners >= 0])
        }
        if channels:
            found.append(_Reading(op, layer, channels))
    return found
