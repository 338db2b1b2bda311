"""Channels by their scores: which may be scored, what holds the others, and the widths at which a goal of time is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.source_line import source_line
from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..outcome import Compaction
from ..rules import rule_of
from ..rules.layout import MERGED
from ..rules.linear_map import unusable
from .decisions import Scored, Widths, check_patterns, ignored_by
from .latency import LatencyGoal, LatencyOutcome, decide_for_latency
from .trial import Trial, tried

__all__ = ["MergedWithBatch", "TimedTrial", "held_by_batch", "score", "tried_for_latency"]

Floats = NDArray[np.float64]
Scoring = Callable[[Sequence[ChannelGroup]], dict[ChannelGroup, Floats]]
"""Gives every channel of some groups a number; the lowest go first."""
Deciding = Callable[[DependencyView, Scored, LatencyGoal, Widths], LatencyOutcome]
"""Which widths reach a goal: `latency.decide_for_latency`, or `knapsack.packed_for_latency`."""

_LISTED = 4
"""Reasons that an error names."""


class MergedWithBatch(InputError):
    """Nothing can be pruned, but some could if the batch were a number."""


def score(view: DependencyView, scoring: Scoring, ignore: Sequence[str] = ()) -> Scored:
    """Scores of the groups that may lose channels. Raises InputError if a pattern matches nothing or there is no such group."""
    ignored = {group: ignored_by(group, ignore) for group in view.groups}
    check_patterns(view, ignore)
    free = [group for group in view.groups if group.prunable and not ignored[group] and group.size > 1]
    if not free and any(group.prunable and ignored[group] for group in view.groups):
        return Scored({}, ignored)  # All is left alone, as was asked.
    if not free:
        merged = any(MERGED in (group.reason or "") for group in view.groups)
        raise (MergedWithBatch if merged else InputError)(_nothing_to_prune(view))
    return Scored(scoring(free), ignored)


def held_by_batch(found: Compaction) -> str | None:
    """What kept all channels, where it is also that they are merged with a batch that varies; else None."""
    reasons = dict.fromkeys(reason for group in found.groups for reason in group.reasons)
    if any(group.got for group in found.groups) or not any(MERGED in reason for reason in reasons):
        return None
    return f"no channel of this model can be removed: {'; '.join(reasons)}"


@dataclass(frozen=True, eq=False)
class TimedTrial:
    """What reaches a goal of time with channels that really go."""

    trial: Trial
    sparsity: float
    """Found for it."""
    share: float
    """Of the dense network's time, as the goal's model tells it."""


def tried_for_latency(
    module: fx.GraphModule,
    view: DependencyView,
    scored: Scored,
    goal: LatencyGoal,
    widths: Widths,
    decide: Deciding = decide_for_latency,
) -> TimedTrial:
    """Widths for a goal, again for as long as some of their channels would stay. Raises OutOfReach if there are none."""
    while True:
        outcome = decide(view, scored, goal, widths)
        trial = tried(module, view, outcome.decisions, widths.step)
        if not trial.withheld:
            return TimedTrial(trial, outcome.sparsity, outcome.share)
        reasons = {decision.group: "; ".join(decision.reasons) for decision in trial.decisions}
        scored = scored.without({group: reasons[group] for group in trial.withheld})


def _nothing_to_prune(view: DependencyView) -> str:
    """What holds the channels of a model, or hides its layers."""
    hidden = _hidden_layers(view)
    if not view.groups and not hidden:
        return "this model has no convolution, linear or other weighted layer to prune"
    reasons = [*hidden, *sorted({group.reason for group in view.groups if group.reason})]
    shown = reasons[:_LISTED] + ([f"and {len(reasons) - _LISTED} more"] if len(reasons) > _LISTED else [])
    listed = "; ".join(shown) or "every layer has a single channel"
    return f"no channel of this model can be removed: {listed}"


def _hidden_layers(view: DependencyView) -> list[str]:
    """What keeps layers out of sight: graphs within the graph, and weights that are computed."""
    hiding = {node: rule_of(view.operations[node]).reason(view.operations[node]) for node in view.enclosed}
    hiding |= {node: reason for node, op in view.operations.items() if (reason := unusable(op))}
    return list(dict.fromkeys(f"{reason} ({source_line(node) or node.name})" for node, reason in hiding.items()))
