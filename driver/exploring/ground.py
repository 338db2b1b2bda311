"""What decisions are made on: the dense network, its target, and what tells times; and what a decision is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import fx

from ...backends.choosing.layer_times import layer_times
from ...backends.latency_table.table import LatencyTable, latency_table
from ...backends.machines.targets import Target
from ...backends.network_times import NetworkTimes, network_times
from ...frontend.graph_module import CapturedModule
from ...passes.canonicalize import canonicalize
from ...passes.dependency import DependencyView, dependency_view
from ...passes.pruning.latency import LayerTime
from ...passes.pruning.scores import Evidence
from ..searched_mapping import HeldOut
from ..shrinking.shrink import Task as Shrinking
from .settings import Settings

if TYPE_CHECKING:
    from ...passes.pruning.structure_plan import StructurePlan

__all__ = ["Choice", "Ground"]


@dataclass(frozen=True, eq=False)
class Choice:
    """What was found for a budget.

    Attributes:
        reached: share of the dense network's time, at most the budget.
        told: what it is, in words.
        module: without the channels that go, where channels were chosen; to be trained.
        structures: by weight, ``row-block:4@0.8``, where zeros inside of layers were chosen; the dense network is trained so.
        plan: the same with the reasons, where rules say what each layer takes.
    """

    reached: float
    told: str
    module: CapturedModule | None = field(default=None, repr=False)
    structures: Mapping[str, str] = field(default_factory=dict)
    plan: StructurePlan | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Ground:
    """What decisions are made on.

    Attributes:
        module: the dense network, captured and trained.
        one: inputs of one example, for times.
        target: whose times count.
        evidence: inputs, images that channels are scored on, loss and seed.
        settings: of the exploration.
        shrinking: where channels are taken step by step, if they are.
        held_out: training images that a search for structures tells accuracy on.
        shares: of the dense network's time, of the steps that were timed.
    """

    module: CapturedModule = field(repr=False)
    one: tuple[Any, ...] = field(repr=False)
    target: Target
    evidence: Evidence = field(repr=False)
    settings: Settings
    shrinking: Shrinking | None = field(default=None, repr=False)
    held_out: HeldOut | None = field(default=None, repr=False)
    shares: dict[int, float] = field(default_factory=dict, repr=False)

    @cached_property
    def canonical(self) -> CapturedModule:
        return canonicalize(self.module)

    @cached_property
    def view(self) -> DependencyView:
        return dependency_view(self.canonical)

    @cached_property
    def times(self) -> NetworkTimes:
        """Of the whole network with zeros. Every variant is held to its budget by them: layers' times do not add up to it."""
        return network_times(self.canonical, self.one, self.target, self.settings.timed_by)

    @cached_property
    def dense(self) -> float:
        return self.times({}).total

    def share_of(self, module: fx.GraphModule) -> float:
        """What a smaller network takes, as a share of the dense one's time."""
        return network_times(canonicalize(module), self.one, self.target, self.settings.timed_by)({}).total / self.dense

    @cached_property
    def layer_time(self) -> LayerTime:
        """Of dense layers by their widths."""
        return layer_times(self.canonical, self.target)

    @cached_property
    def table(self) -> LatencyTable:
        """Of single layers with zeros."""
        return latency_table(self.canonical, self.one, self.target, self.settings.timed_by)
