"""Goals that one clock tells, moved until another is content."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene.driver.exploring.within import Tried, slowest_within
from reconvene.passes.pruning.latency import OutOfReach


def giving(share: Callable[[float], float], least: float = 0.0) -> Callable[[float], Tried[float]]:
    """Networks that take `share` of the goal; none for goals below `least`."""

    def give(goal: float) -> Tried[float]:
        if goal < least:
            raise OutOfReach(f"{goal} is too little")
        return Tried(share(goal), goal)

    return give


def test_a_clock_that_agrees_is_asked_once() -> None:
    asked: list[float] = []
    found = slowest_within(giving(lambda goal: (asked.append(goal), goal)[1]), 0.5)
    assert found.share == 0.5 and asked == [0.5]


@given(st.floats(0.1, 0.9), st.floats(0.7, 1.4), st.floats(-0.1, 0.1))
def test_the_budget_is_met_and_nearly_used(budget: float, slope: float, offset: float) -> None:
    def share(goal: float) -> float:
        return slope * goal + offset

    found = slowest_within(giving(share), budget)
    assert found.share <= budget
    assert found.share >= min(budget, share(1.0)) - 0.06


def test_steps_are_no_trap() -> None:
    """Widths are multiples: shares of 0.2, 0.4 ..., and a goal below 0.3 has none."""
    found = slowest_within(giving(lambda goal: round(goal * 5 + 0.5) / 5, least=0.3), 0.5)
    assert found.share == 0.4
    with pytest.raises(OutOfReach, match=r"nothing that was tried takes 0.35 .* takes 0.4"):
        slowest_within(giving(lambda goal: round(goal * 5 + 0.5) / 5, least=0.3), 0.35)


def test_where_no_goal_has_anything_that_is_told() -> None:
    with pytest.raises(OutOfReach, match=r"nothing that was tried takes 0.5 .* is too little"):
        slowest_within(giving(lambda goal: goal, least=2.0), 0.5)
