"""Whole channels that meet a budget: the goal of a latency that layers add up to, moved until the whole network meets it."""

from __future__ import annotations

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ...passes.compaction import compact
from ...passes.pruning.channel_scores import channel_scores
from ...passes.pruning.channels import score, tried_for_latency
from ...passes.pruning.decisions import Scored, Widths
from ...passes.pruning.knapsack import packed_for_latency
from ...passes.pruning.latency import LatencyGoal, decide_for_latency
from .ground import Choice, Ground
from .settings import KNAPSACK
from .within import Tried, slowest_within

__all__ = ["channels_for"]


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

    known: dict[tuple[int, ...], Tried[CapturedModule]] = {}

    def give(share: float) -> Tried[CapturedModule]:
        goal = LatencyGoal(share, ground.layer_time)
        trial = tried_for_latency(ground.module, ground.view, scored, goal, widths, decide).trial
        gone = tuple(int(decision.drop.sum()) for decision in trial.decisions)
        if gone not in known:  # Widths are multiples, so that many goals have the same.
            origin = {"method": kind, "latency": share, "seed": ground.evidence.seed}
            found = compact(ground.module, ground.evidence.inputs, trial.masks, analysis=trial.analysis, origin=origin)
            assert isinstance(found.module, CapturedModule)
            known[gone] = Tried(ground.share_of(found.module), found.module)
        return known[gone]

    found = slowest_within(give, budget)
    before, after = (sum(value.numel() for value in some.parameters()) for some in (ground.module, found.made))
    return Choice(found.share, f"{1 - after / before:.0%} of the parameters gone with their channels", found.made)


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
