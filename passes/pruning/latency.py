"""Deciding widths by time instead of parameters: the share of channels at which the layers take a given time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from numbers import Real

from ...frontend.base.errors import InputError
from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..values import attribute
from .decisions import AS_WANTED, Decision, Scored, Widths, allot, rounded

__all__ = [
    "LatencyGoal",
    "LatencyOutcome",
    "LayerTime",
    "OutOfReach",
    "check_latency",
    "decide_for_latency",
    "layer_channels",
]

LayerTime = Callable[[str, int, int], float]
"""Time of one layer by its weight's name and the sizes of that weight's second and first axis (channels in and out).

Any unit; 0 for weights it does not know.
"""

_STEPS = 12
_MAX_SPARSITY = 0.999
_GIVE_UP_RATIO = 1.05
"""Past this much more time, still wider layers are not tried."""


class OutOfReach(InputError):
    """No network that could be made takes so little time; the line says how near one comes."""


@dataclass(frozen=True)
class LatencyGoal:
    """What is wanted: `share` of the dense network's time, above 0 and at most 1, as `time` tells it."""

    share: float
    time: LayerTime

    def __post_init__(self) -> None:
        check_latency(self.share)


def check_latency(share: float) -> None:
    """Raises InputError unless it is a number above 0 and up to 1."""
    if not (isinstance(share, Real) and 0 < share <= 1):
        raise InputError(f"latency {share!r} is outside 0..1; give the share of the dense time to reach, such as 0.5")


@dataclass(frozen=True)
class LatencyOutcome:
    """What was found: decisions, the sparsity they come from, and their time as a share of the dense network's."""

    decisions: tuple[Decision, ...]
    sparsity: float
    share: float


def decide_for_latency(
    view: DependencyView,
    scored: Scored,
    goal: LatencyGoal,
    widths: Widths = AS_WANTED,
) -> LatencyOutcome:
    """The least sparsity at which the layers take the goal's share of their time.

    Afterwards every group is as wide as it can be without costing more, so that no width is chosen that takes as long
    as a larger one.

    Raises:
        OutOfReach: the share cannot be reached.
        InputError: no layer's time is known.
    """
    time = cache(goal.time)
    dense = _total(view, (), time)
    if dense <= 0:
        raise InputError("no layer of this model has a known time, so a latency cannot be aimed at; give a sparsity")

    low, high = 0.0, _MAX_SPARSITY
    best = allot(view, scored, high, widths)
    if _total(view, best, time) > goal.share * dense:
        least = _total(view, best, time) / dense
        raise OutOfReach(f"latency {goal.share} cannot be reached: with every layer at its least it is {least:.2f}")
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = allot(view, scored, middle, widths)
        if _total(view, found, time) <= goal.share * dense:
            best, high = found, middle
        else:
            low = middle
    widened = _widened(view, best, scored, time, widths)
    return LatencyOutcome(widened, high, _total(view, widened, time) / dense)


def layer_channels(view: DependencyView, decisions: Sequence[Decision]) -> dict[str, tuple[int, int]]:
    """For every stored weight with two axes or more, the sizes of its second and first axis after `decisions`."""
    lost: dict[tuple[str, int], int] = {}
    for decision in decisions:
        if decision.drop.any():
            for part in decision.group.slices:
                count = int((part.positions[decision.drop] >= 0).sum())
                lost[part.parameter, part.axis] = lost.get((part.parameter, part.axis), 0) + count
    lost |= {(name, 1): count for name, count in _lost_in_groups(view, decisions)}
    shapes = {name: tuple(attribute(view.module, name).shape) for name in view.stored}
    return {
        name: (shape[1] - lost.get((name, 1), 0), shape[0] - lost.get((name, 0), 0))
        for name, shape in shapes.items()
        if len(shape) > 1
    }


def _lost_in_groups(view: DependencyView, decisions: Sequence[Decision]) -> Iterator[tuple[str, int]]:
    """What each group of a grouped convolution reads less, by the name of its weight, which has no axis for all it reads."""
    by_class = {number: decision for decision in decisions for number in decision.group.classes}
    for name, (layer, *_) in view.layers.items():
        if layer.groups > 1 and not layer.transposed and not layer.depthwise:
            decision = by_class.get(view.axes.of(layer.source, layer.axis))
            if decision is not None:
                yield name, int(decision.drop.sum()) // layer.groups


def _total(view: DependencyView, decisions: Sequence[Decision], time: LayerTime) -> float:
    return sum(time(name, *channels) for name, channels in layer_channels(view, decisions).items())


def _widened(
    view: DependencyView,
    decisions: Sequence[Decision],
    scored: Scored,
    time: LayerTime,
    widths: Widths,
) -> tuple[Decision, ...]:
    """Every group in turn at the largest width that makes the network no slower, until none changes."""
    current = list(decisions)
    best = _total(view, current, time)
    changed = True
    while changed:
        changed = False
        for number, decision in enumerate(current):
            score = scored.scores.get(decision.group)
            if score is None or not decision.drop.any():
                continue
            kept = int((~decision.drop).sum())
            for wider in _wider(decision.group, kept, widths.step):
                lost = max(0, decision.group.size - wider)
                trial = rounded(decision.group, score, lost, widths)
                total = _total(view, [*current[:number], trial, *current[number + 1 :]], time)
                if total <= best:
                    current[number], best, changed = _as_wanted(trial, decision), total, True
                elif total > _GIVE_UP_RATIO * best:
                    break
    return tuple(current)


def _wider(group: ChannelGroup, kept: int, multiple: int) -> range:
    step = max(multiple, group.blocks)
    return range(kept + step, group.size + step, step)


def _as_wanted(trial: Decision, before: Decision) -> Decision:
    """`trial`, with what the sparsity asked for and why more stays."""
    reason = "more channels take no more time"
    reasons = before.reasons if reason in before.reasons else (*before.reasons, reason)
    return Decision(before.group, before.wanted, trial.drop, reasons, trial.score)
