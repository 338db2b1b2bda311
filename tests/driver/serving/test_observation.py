"""What is learnt of requests within a window, by a clock moved by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconvene.driver.serving.observation import Power, Window, read_power


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_empty_window() -> None:
    window = Window(10, Clock())
    assert (window.requests(), window.p95_ms(), window.mean_seconds(), window.busy(), window.queue()) == (
        0,
        None,
        0,
        0,
        0,
    )


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=60))
def test_the_percentile_is_the_nearest_rank(seconds: list[float]) -> None:
    window = Window(10, Clock())
    for value in seconds:
        window.add("a", value, 0.0)
    assert window.p95_ms() == pytest.approx(1e3 * np.percentile(seconds, 95, method="inverted_cdf"))


def test_what_is_old_goes() -> None:
    clock = Clock()
    window = Window(10, clock)
    window.begin("a")
    for _ in range(4):
        clock.now += 4
        window.add("a", 2.0, 1.0)
        window.look(3)
    # At 104, 108, 112 and 116; now it is 116, so the first one is older than ten seconds.
    assert (window.requests(), window.queue()) == (3, 3)
    assert window.busy() == pytest.approx(0.3)
    clock.now += 100
    assert (window.requests(), window.p95_ms(), window.queue()) == (0, None, 0)


def test_another_variant_begins_anew() -> None:
    clock = Clock()
    window = Window(10, clock)
    window.add("a", 2.0, 1.0)
    window.look(9)
    window.begin("a")
    assert window.requests() == 1
    window.begin("b")
    assert (window.requests(), window.queue(), window.busy()) == (0, 0, 0)
    clock.now += 2
    window.add("b", 1.0, 1.0)
    assert (window.p95_ms(), window.mean_seconds(), window.busy()) == (1000, 1, 0.5)


def test_this_machines_sensors_can_be_asked() -> None:
    power = read_power()
    assert isinstance(power, Power)
    assert power.charge is None or 0 <= power.charge <= 1
