"""Policies on observations made by hand: what each wishes for, and at which thresholds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconvene.driver.serving.observation import Choice, Observation, Power
from reconvene.driver.serving.policies import (
    ByHand,
    Combined,
    LatencyObjective,
    MemoryAvailable,
    PowerHint,
    QueueLength,
)
from reconvene.frontend.base.errors import InputError

MIB = 1 << 20
CHOICES = (
    Choice("a", 8.0, 80 * MIB),
    Choice("b", 4.0, 40 * MIB),
    Choice("c", 2.0, 20 * MIB),
    Choice("d", 1.0, 10 * MIB),
)


def seen(active: int, **values: object) -> Observation:
    return replace(Observation(100.0, active, CHOICES, requests=50), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("active", "p95", "wanted"),
    [
        (0, 10.0, 0),  # at the objective
        (0, 10.1, 1),  # above it; 5.05 are expected of the next
        (0, 20.0, 2),  # 10 are expected of the next, which is too near; 5 of the one after it
        (0, 500.0, 3),  # none will do, so the smallest
        (3, 500.0, 3),
        (3, 7.1, 3),  # 14.2 are expected of the next
        (3, 3.6, 3),  # 7.2, above the lower threshold
        (3, 3.4, 2),  # 6.8
        (3, 0.5, 0),  # 4 of the largest
        (1, 6.0, 1),  # between the thresholds
    ],
)
def test_latency(active: int, p95: float, wanted: int) -> None:
    wish = LatencyObjective(10.0).wish(seen(active, p95_ms=p95))
    assert wish.index == wanted
    assert wish.reason == f"p95 {p95:.3g} ms, objective 10 ms"


def test_latency_of_few_requests() -> None:
    assert LatencyObjective(10.0).wish(seen(1, p95_ms=99.0, requests=19)).index == 1
    assert LatencyObjective(10.0).wish(seen(1, p95_ms=None)).index == 1


@pytest.mark.parametrize(
    ("active", "queue", "busy", "wanted"),
    [
        (0, 8.1, 1.0, 1),
        (0, 8.0, 1.0, 0),
        (3, 9.0, 1.0, 3),
        (1, 1.9, 0.35, 0),  # the larger one would compute 0.7 of the time
        (1, 1.9, 0.36, 1),
        (1, 2.1, 0.1, 1),
        (0, 0.0, 0.0, 0),
    ],
)
def test_queue(active: int, queue: float, busy: float, wanted: int) -> None:
    assert QueueLength().wish(seen(active, queue=queue, busy=busy)).index == wanted


def test_an_idle_queue_says_nothing_of_a_larger_variant() -> None:
    assert QueueLength().wish(seen(2, queue=0.0, busy=0.0, requests=0)).index == 2


@pytest.mark.parametrize(
    ("active", "memory", "wanted"),
    [
        (0, 99, 1),
        (0, 100, 0),
        (3, 50, 3),
        (1, 229, 1),  # with 80 for the larger one 149 are left
        (1, 230, 0),
    ],
)
def test_memory(active: int, memory: int, wanted: int) -> None:
    assert MemoryAvailable(100 * MIB).wish(seen(active, memory=memory * MIB)).index == wanted


def test_memory_that_nobody_knows() -> None:
    wish = MemoryAvailable(MIB).wish(seen(1))
    assert (wish.index, wish.reason) == (None, "this machine does not say how much memory is left")


@pytest.mark.parametrize(
    ("active", "power", "wanted"),
    [
        (0, Power(0.19, False, None), 1),
        (0, Power(0.20, False, None), 0),
        (1, Power(0.40, False, None), 1),
        (1, Power(0.41, False, None), 0),
        (1, Power(0.05, True, None), 0),  # it is being charged
        (0, Power(None, None, 80.5), 1),
        (1, Power(None, None, 65.0), 1),
        (1, Power(None, None, 64.0), 0),
        (1, Power(0.9, True, 81.0), 2),
        (1, Power(0.3, False, 40.0), 1),
        (3, Power(0.1, False, 99.0), 3),
    ],
)
def test_power(active: int, power: Power, wanted: int) -> None:
    assert PowerHint().wish(seen(active, power=power)).index == wanted


def test_no_sensors_are_said_to_be_none() -> None:
    wish = PowerHint().wish(seen(1))
    assert (wish.index, wish.reason) == (None, "this machine has no battery and no thermal sensor that can be read")


def test_the_smallest_wish_wins() -> None:
    both = Combined((LatencyObjective(10.0), MemoryAvailable(100 * MIB), PowerHint(), ByHand()))
    assert both.wish(seen(1, p95_ms=1.0, memory=50 * MIB)).index == 2
    assert both.wish(seen(1, p95_ms=50.0, memory=999 * MIB)).index == 3
    assert both.wish(seen(1, p95_ms=1.0, memory=999 * MIB)).index == 0
    # A policy without an opinion does not hold the others back; one that is content does.
    assert both.wish(seen(1, p95_ms=8.0, memory=999 * MIB)).index == 1
    assert Combined((ByHand(), PowerHint())).wish(seen(1)).index is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: LatencyObjective(0),
        lambda: LatencyObjective(5, low=1),
        lambda: QueueLength(2, 2),
        lambda: MemoryAvailable(0),
        lambda: MemoryAvailable(1, 1),
        lambda: PowerHint(low=0.5, high=0.4),
        lambda: PowerHint(hot=50),
        lambda: Combined(()),
    ],
)
def test_thresholds_that_make_no_sense(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        make()
