"""Timing in turns."""

from __future__ import annotations

import time

import pytest

from reconvene.backends.measure import time_calls
from reconvene.frontend.base.errors import InputError


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    timings = time_calls({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, 0, batch=4)
    assert "".join(calls[2:]) == "ababab"
    assert (timings["a"].repeats, timings["a"].batch) == (3, 4)


def test_slow_candidates_are_called_less_often() -> None:
    timings = time_calls({"slow": lambda: time.sleep(0.6), "fast": lambda: None}, 9, 2)
    assert timings["fast"].repeats == 9 > timings["slow"].repeats >= 3


@pytest.mark.parametrize(("repeat", "warmup"), [(0, 1), (1, -1)])
def test_counts_are_checked(repeat: int, warmup: int) -> None:
    with pytest.raises(InputError, match="repeat must be at least 1"):
        time_calls({}, repeat, warmup)
