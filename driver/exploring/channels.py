"""Whole channels that meet a budget: the goal of a latency that layers add up to, moved until the whole network meets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...passes.compaction import compact
from ...passes.pruning.channel_scores import channel_scores
from ...passes.pruning.channels import score, tried_for_latency
from ...passes.pruning.decisions import Scored, Widths
from ...passes.pruning.knapsack import packed_for_latency
from ...passes.pruning.latency import LatencyGoal, OutOfReach, decide_for_latency
from .ground import Choice, Ground
from .settings import KNAPSACK

__all__ = ["Tried", "channels_for", "widest_within"]

_TRIES = 8
_NEAR = 0.01
"""Of the dense network's time: what is so little below a budget is not searched further."""
_DIGITS = 4
"""Of a goal."""
_INSIDE = 0.1
"""How far from either end of what is left a guess lies at least, as a share of it: so that every guess narrows it."""


@dataclass(frozen=True, eq=False)
class Tried:
    """A smaller network, and what share of the dense one's time it takes."""

    share: float
    module: fx.GraphModule = field(repr=False)


def channels_for(ground: Ground, kind: str, budget: float) -> Choice:
    """The channels that stay.

    One share of all layers' smallest channels goes, as `reconvene prune --latency` has it; or a knapsack keeps most importance
    (Taylor scores).

    Raises:
        OutOfReach: no widths are so fast.
        InputError: nothing can be pruned, or a pattern matches nothing.
    """
    by_knapsack = kind == KNAPSACK
    scored = _scored(ground, by_knapsack)
    widths = Widths(multiple=ground.target.channel_multiple, ignore=ground.settings.ignore)
    decide = packed_for_latency if by_knapsack else decide_for_latency

    known: dict[tuple[int, ...], Tried] = {}

    def give(share: float) -> Tried:
        goal = LatencyGoal(share, ground.layer_time)
        trial = tried_for_latency(ground.module, ground.view, scored, goal, widths, decide).trial
        gone = tuple(int(decision.drop.sum()) for decision in trial.decisions)
        if gone not in known:  # Widths are multiples, so that many goals have the same.
            origin = {"method": kind, "latency": share, "seed": ground.evidence.seed}
            found = compact(ground.module, ground.evidence.inputs, trial.masks, analysis=trial.analysis, origin=origin)
            known[gone] = Tried(ground.share_of(found.module), found.module)
        return known[gone]

    found = widest_within(give, budget)
    assert isinstance(found.module, CapturedModule)
    before, after = (sum(value.numel() for value in some.parameters()) for some in (ground.module, found.module))
    return Choice(found.share, f"{1 - after / before:.0%} of the parameters gone with their channels", found.module)


def widest_within(give: Callable[[float], Tried], budget: float) -> Tried:
    """The slowest network within a budget, of those that `give` makes of goals which another clock tells.

    Args:
        give: the network for a goal above 0 and up to 1; raises OutOfReach where there is none.
        budget: share of the dense network's time, below 1.

    Raises:
        OutOfReach: none was found, with how near one came.
    """
    low, high, goal = 0.0, 1.0, budget
    best, least = None, 1.0
    for _ in range(_TRIES):
        try:
            found = give(round(goal, _DIGITS))
        except OutOfReach:
            low, goal = goal, (goal + high) / 2
            continue
        least = min(least, found.share)
        if found.share > budget:
            high = goal
        else:
            low = goal
            best = found if best is None or found.share > best.share else best
            if budget - found.share <= _NEAR:
                break
        room = _INSIDE * (high - low)
        goal = min(max(goal + budget - found.share, low + room), high - room)
    if best is None:
        raise OutOfReach(
            f"no widths take {budget:g} of the dense network's time; the fastest that were tried take {least:.3f}"
        )
    return best


def _scored(ground: Ground, by_knapsack: bool) -> Scored:
    """Importance that adds up, or the norms of channels."""
    name, order = ("snip", 1) if by_knapsack else ("magnitude", 2)
    if by_knapsack and not ground.evidence.batches:
        raise InputError(f"{KNAPSACK} scores channels on images, and there are none")
    return score(
        ground.view,
        lambda groups: channel_scores(ground.view, groups, name, ground.evidence, order),
        ground.settings.ignore,
    )
