"""What goes at one step, by each of the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ...passes.dependency import DependencyView
from ...passes.pruning.channel_scores import channel_scores
from ...passes.pruning.channels import score
from ...passes.pruning.decisions import Decision, Widths, masks_of
from ...passes.pruning.knapsack import packed_for_latency
from ...passes.pruning.latency import LatencyGoal, LayerTime, decide_for_latency, layer_channels
from ...passes.pruning.scores import Evidence
from ...passes.pruning.search.channel_parts import ChannelParts, layer_costs, ranked
from ...passes.pruning.search.counts import Counts, counts
from ...passes.pruning.search.distribution import Floats, initial
from ...passes.pruning.search.rewards import Costs
from ...passes.pruning.search.rounds import Found, search
from .course import RL_PRUNER, TIMED, Course, Settings

__all__ = ["Allotted", "Ground", "allotted", "costs_of", "parts_of"]


@dataclass(frozen=True, eq=False)
class Ground:
    """What a decision is made on.

    Attributes:
        parts: of the network as it is.
        budget: filters that go.
        dense: costs of the dense network.
        accuracy: of the network with masks, on held-out items; without masks as it is.
        time: of layers, where it is asked for.
        generator: of the search.
        explore: chance to take any of the best.
    """

    parts: ChannelParts
    budget: int
    dense: Costs
    accuracy: Callable[[Mapping[str, Tensor]], float] = field(repr=False)
    time: LayerTime | None
    generator: np.random.Generator
    explore: float = 0.0


@dataclass(frozen=True, eq=False)
class Allotted:
    """What was decided.

    Attributes:
        decisions: for every group of the network.
        distribution: over the groups that have scores, for the next step to begin with.
        found: how it was searched for, if it was.
        reset: whether the first search was thrown away, since accuracy fell too far.
    """

    decisions: tuple[Decision, ...]
    distribution: Floats
    found: Found | None = None
    reset: bool = False


def parts_of(view: DependencyView, course: Course, evidence: Evidence, held: Mapping[str, str]) -> ChannelParts:
    """The network's groups by their scores: Taylor's, or magnitudes where the rule ranks by these.

    Args:
        view: of the network.
        course: rule, floor and layers that stay whole.
        evidence: images, for the scores.
        held: groups that turned out to keep their channels, by name, and why.

    Raises:
        InputError: a pattern matches nothing, or no group can lose anything.
    """
    name, order = ("magnitude", 2) if course.rule == "magnitude" else ("snip", 1)
    scored = score(view, lambda groups: channel_scores(view, groups, name, evidence, order), course.ignore)
    stay = {group: held[group.name] for group in scored.scores if group.name in held}
    return ChannelParts(view, scored.without(stay) if stay else scored, Widths(minimum=course.minimum))


def costs_of(view: DependencyView, decisions: Sequence[Decision], time: LayerTime | None) -> Costs:
    """What the network costs after decisions."""
    found = layer_costs(view, decisions)
    return found if time is None else Costs(found.macs, found.parameters, _time(view, decisions, time))


def allotted(settings: Settings, ground: Ground, begin: Floats | None = None) -> Allotted:
    """What goes at this step.

    Args:
        settings: whose rule decides.
        ground: what it decides on.
        begin: distribution to begin a search with; None for equal shares.

    Raises:
        InputError: no group has channels left that could go, or no widths take the time that is aimed at.
    """
    described = ground.parts.parts()
    even = initial(described)
    if not even.any():
        raise InputError(
            "no layer has channels left that could go; ask for a smaller sparsity, or a smaller minimum of channels"
        )
    rule = settings.course.rule
    if rule == RL_PRUNER:
        return _searched(settings, ground, even if begin is None else begin)
    if rule in TIMED:
        decide = packed_for_latency if rule == "knapsack" else decide_for_latency
        goal = _goal(ground, counts(even, described, ground.budget))
        return Allotted(decide(ground.parts.view, ground.parts.scored, goal, ground.parts.widths).decisions, even)
    taken = counts(even, described, ground.budget) if rule == "uniform" else ranked(ground.parts, ground.budget)
    return Allotted(ground.parts.decisions(taken), even)


def _searched(settings: Settings, ground: Ground, begin: Floats) -> Allotted:
    """By the search; once more from equal shares if what it found loses too much accuracy, and then the better one."""
    described, accuracies = ground.parts.parts(), dict[Counts, float]()

    def quality(some: Sequence[Counts]) -> list[float]:
        found = []
        for taken in track(some, "scoring candidates"):
            decisions = ground.parts.decisions(taken)
            costs = costs_of(ground.parts.view, decisions, ground.time).saved(ground.dense)
            accuracies[taken] = ground.accuracy(masks_of(ground.parts.view, decisions))
            found.append(settings.reward(accuracies[taken], costs))
        return found

    def searched(distribution: Floats) -> Found:
        return search(
            described, ground.budget, distribution, settings.search, quality, ground.generator, explore=ground.explore
        )

    found, reset = searched(begin), False
    if accuracies[found.chosen.counts] < (1 - settings.course.fall) * ground.accuracy({}):
        again, reset = searched(initial(described)), True
        found = again if again.chosen.quality >= found.chosen.quality else found
    return Allotted(ground.parts.decisions(found.chosen.counts), found.distribution, found, reset)


def _goal(ground: Ground, even: Counts) -> LatencyGoal:
    """The time of the network that loses equal shares."""
    assert ground.time is not None
    view = ground.parts.view
    wanted = _time(view, ground.parts.decisions(even), ground.time) / max(_time(view, (), ground.time), 1e-300)
    if wanted <= 0:
        raise InputError("no layer of this model has a known time, so that none can be aimed at; choose another rule")
    return LatencyGoal(wanted, ground.time)


def _time(view: DependencyView, decisions: Sequence[Decision], time: LayerTime) -> float:
    return sum(time(name, *sizes) for name, sizes in layer_channels(view, decisions).items())
