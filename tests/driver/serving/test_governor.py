"""Variants never flap, whatever the observations are: properties of the governor with every policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconvene.driver.serving.governor import Governor, Stance
from reconvene.driver.serving.observation import Choice, Observation, Power
from reconvene.driver.serving.policies import (
    Combined,
    LatencyObjective,
    MemoryAvailable,
    Policy,
    PowerHint,
    QueueLength,
    Wish,
)
from reconvene.frontend.base.errors import InputError

DWELL = 10.0
GOVERNOR = Governor(DWELL)


@dataclass(frozen=True)
class Event:
    """A switch at `seconds`."""

    seconds: float
    before: int
    after: int


def simulated(
    observe: Callable[[float, int], Observation], policy: Policy, start: int, times: Sequence[float]
) -> list[Event]:
    """The switches of a server that looks at `times`."""
    stance, active, events = Stance(), start, []
    for seconds in times:
        seen = observe(seconds, active)
        chosen = GOVERNOR.decided(stance, policy.wish(seen), seen)
        if chosen != active:
            events.append(Event(seconds, active, chosen))
            stance, active = GOVERNOR.switched(stance, active, chosen, seconds), chosen
    return events


def choices(costs: Sequence[float]) -> tuple[Choice, ...]:
    return tuple(Choice(f"v{index}", cost, int(cost * 1e6)) for index, cost in enumerate(costs))


COSTS = st.lists(st.floats(0.5, 50), min_size=2, max_size=6).map(lambda costs: sorted(costs, reverse=True))
LOOKS = st.lists(
    st.tuples(
        st.floats(0.05, 4),  # seconds to the next look
        st.one_of(st.none(), st.floats(0, 1000)),  # p95
        st.integers(0, 100),
        st.floats(0, 40),  # queue
        st.floats(0, 1),  # busy
        st.one_of(st.none(), st.integers(0, 1 << 30)),
        st.builds(Power, st.one_of(st.none(), st.floats(0, 1)), st.booleans(), st.one_of(st.none(), st.floats(0, 120))),
    ),
    min_size=20,
    max_size=80,
)
POLICIES: list[Policy] = [
    LatencyObjective(10.0, requests=1),
    QueueLength(),
    MemoryAvailable(1 << 28),
    PowerHint(),
    Combined((LatencyObjective(10.0, requests=1), QueueLength(), MemoryAvailable(1 << 28), PowerHint())),
]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@settings(max_examples=60)
@given(costs=COSTS, looks=LOOKS, data=st.data())
def test_no_flapping_on_any_trace(policy: Policy, costs: list[float], looks: list, data: st.DataObject) -> None:
    """Any two switches are the dwell time apart; what was left as too much stays away for twice that."""
    times = list(itertools.accumulate(look[0] for look in looks))
    rows = dict(zip(times, looks, strict=True))

    def observe(seconds: float, active: int) -> Observation:
        _, p95, requests, queue, busy, memory, power = rows[seconds]
        return Observation(seconds, active, choices(costs), requests, p95, queue, busy, memory, power)

    start = data.draw(st.integers(0, len(costs) - 1))
    events = simulated(observe, policy, start, times)
    for first, second in itertools.pairwise(events):
        assert second.seconds - first.seconds >= DWELL
        assert second.before == first.after
    for index, event in enumerate(events):
        if event.after > event.before:
            back = [later for later in events[index:] if later.after <= event.before]
            assert not back or back[0].seconds - event.seconds >= 2 * DWELL


@settings(max_examples=60, deadline=None)
@given(
    costs=COSTS, factor=st.floats(0.05, 20), start=st.integers(0, 5), noise=st.lists(st.floats(0.97, 1.03), min_size=9)
)
def test_a_steady_load_settles_for_good(costs: list[float], factor: float, start: int, noise: list[float]) -> None:
    """With latencies that are what the portfolio says, times the machine's own factor, two switches are enough."""
    wobble = itertools.cycle(noise)

    def observe(seconds: float, active: int) -> Observation:
        p95 = factor * costs[active] * next(wobble)
        return Observation(seconds, active, choices(costs), 50, p95)

    times = [0.5 * step for step in range(1, 300)]
    events = simulated(observe, LatencyObjective(10.0), min(start, len(costs) - 1), times)
    directions = [event.after > event.before for event in events]
    # Noise can reveal a larger variant late, but nobody goes back.
    assert directions == sorted(directions) or directions == sorted(directions, reverse=True)
    assert len(events) <= len(costs) - 1


@settings(max_examples=30, deadline=None)
@given(
    costs=COSTS,
    latencies=st.lists(st.floats(0.1, 100), min_size=6, max_size=6),
    start=st.integers(0, 5),
)
def test_a_portfolio_that_is_wrong_costs_few_switches(costs: list[float], latencies: list[float], start: int) -> None:
    """Where the true latencies have nothing to do with the portfolio's, bans that double keep switches rare."""
    times = [0.5 * step for step in range(1, 2400)]

    def observe(seconds: float, active: int) -> Observation:
        return Observation(seconds, active, choices(costs), 50, latencies[active])

    events = simulated(observe, LatencyObjective(10.0), min(start, len(costs) - 1), times)
    assert len(events) <= 2 * (len(costs) + 1) * math.log2(times[-1] / DWELL)


def test_bans_double_and_are_forgotten() -> None:
    stance = GOVERNOR.switched(Stance(), 0, 1, 0.0)
    assert stance.bans[0].until == 20
    up = Wish(0, "")

    def at(seconds: float) -> Observation:
        return Observation(seconds, 1, choices([2, 1]))

    assert GOVERNOR.decided(stance, up, at(19.9)) == 1
    assert GOVERNOR.decided(stance, up, at(20.0)) == 0
    # It fails again after ten seconds, and then after a long time.
    stance = GOVERNOR.switched(GOVERNOR.switched(stance, 1, 0, 20.0), 0, 1, 30.0)
    assert stance.bans[0].until == 70
    stance = GOVERNOR.switched(GOVERNOR.switched(stance, 1, 0, 70.0), 0, 1, 1000.0)
    assert stance.bans[0].until == 1020


def test_a_variant_that_cannot_be_loaded_is_passed_over() -> None:
    stance = GOVERNOR.failed(Stance(), 1, 0.0)
    seen = Observation(11.0, 0, choices([4, 2, 1]))
    assert GOVERNOR.decided(stance, Wish(1, ""), seen) == 2
    assert GOVERNOR.decided(stance, Wish(None, ""), seen) == 0
    late = Observation(20.0, 0, choices([4, 2, 1]))
    assert GOVERNOR.decided(stance, Wish(1, ""), late) == 1
    last = Observation(11.0, 0, choices([4, 2]))
    assert GOVERNOR.decided(stance, Wish(1, ""), last) == 0


def test_a_dwell_time_that_makes_no_sense() -> None:
    with pytest.raises(InputError, match="dwell time of 0"):
        Governor(0)
