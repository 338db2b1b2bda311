"""Meeting a budget that one clock tells by goals that another does: the whole network's time, and what its layers add up to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ...passes.pruning.latency import OutOfReach

__all__ = ["Tried", "slowest_within"]

Made = TypeVar("Made")

_INSIDE = 0.1
"""How far from either end of what is left a guess lies at least, as a share of it: so that every guess narrows it."""
_DIGITS = 4
"""Of a goal."""


@dataclass(frozen=True, eq=False)
class Tried(Generic[Made]):
    """What was made for a goal, and what share of the dense network's time it takes."""

    share: float
    made: Made = field(repr=False)


def slowest_within(
    give: Callable[[float], Tried[Made]], budget: float, tries: int = 8, near: float = 0.01
) -> Tried[Made]:
    """The slowest of what `give` makes that is within a budget, as far as so many goals tell.

    Args:
        give: what is made for a goal above 0 and up to 1; raises OutOfReach where there is nothing.
        budget: share of the dense network's time, below 1.
        tries: goals.
        near: of the dense network's time: what is so little below the budget is not searched further.

    Raises:
        OutOfReach: nothing was found, with how near one came.
    """
    low, high, goal = 0.0, 1.0, budget
    best: Tried[Made] | None = None
    told, least = "", math.inf
    for _ in range(tries):
        try:
            found = give(round(goal, _DIGITS))
        except OutOfReach as error:
            low, goal = goal, (goal + high) / 2
            told = told if least < math.inf else str(error)
            continue
        least = min(least, found.share)
        told = f"the fastest takes {least:.3f}"
        if found.share > budget:
            high = goal
        else:
            low = goal
            best = found if best is None or found.share > best.share else best
            if budget - found.share <= near:
                break
        room = _INSIDE * (high - low)
        goal = min(max(goal + budget - found.share, low + room), high - room)
    if best is None:
        raise OutOfReach(f"nothing that was tried takes {budget:g} of the dense network's time; {told}")
    return best
