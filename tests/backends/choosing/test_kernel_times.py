"""The least time of kernels that are timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pytest

from reconvene.backends.choosing.kernel_times import in_cache, least_times
from reconvene.backends.kernels.base import Trial, trial_of
from reconvene.backends.kernels.gather_family import GatherFamily
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.kernels.transposing import TransposeSpec
from reconvene.backends.lowering.layout import dense_view
from tests.support.planes import PlanesLayer


class Clock:
    """Stands still but for what calls take."""

    def __init__(self) -> None:
        self.now = 0.0

    def takes(self, seconds: Sequence[float]) -> Callable[[], None]:
        """A call that takes these seconds, one after the other, then always the last."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "thread_time", lambda: clock.now)
    return clock


def names_of(trial: Trial) -> list[str]:
    return [parameter.name for parameter in trial.function.params]


def cached_in(trial: Trial) -> set[str]:
    return {names_of(trial)[place] for place in in_cache(trial)}


def nothing() -> None:
    """What is not timed."""


def test_one_slow_turn_does_not_end_a_kernel(clock: Clock) -> None:
    """The first call of all is not timed; the first that is may be disturbed."""
    calls = [(clock.takes([9.0, 1.0]), nothing), (clock.takes([9.0, 5.0, 0.5]), nothing)]
    assert least_times(calls, nothing, 1, 3) == [1.0, 0.5]


def test_hopeless_kernels_are_called_less_often(clock: Clock) -> None:
    counts = [0, 0]

    def counted(index: int, call: Callable[[], None]) -> Callable[[], None]:
        def called() -> None:
            counts[index] += 1
            call()

        return called

    calls = [(counted(i, clock.takes([seconds])), nothing) for i, seconds in enumerate((1.0, 3.0))]
    assert least_times(calls, nothing, 1, 6) == pytest.approx([1.0, 3.0])
    assert counts == [7, 3]


def test_tables_come_from_memory_as_weights_do() -> None:
    """A list of places is as large as the weights of rows that share none; in a network nobody has read it before."""
    machine = Machine(16, 32, 2**19)
    spec = GatherFamily().candidates(PlanesLayer(6, 12, (9, 9)).task(), machine)[0]
    trial = trial_of(spec)
    from_memory = {"weights", "rows", "starts", "spans", "places"}
    assert from_memory <= set(names_of(trial))
    assert {"source", "bias", "result"} <= cached_in(trial) and not from_memory & cached_in(trial)


def test_what_has_no_weights_finds_its_result_in_cache() -> None:
    blocks, planes = dense_view(1, 1, 5, 5, 8, 0), plane_view(1, 8, 5, 5, 0, 5)
    trial = trial_of(TransposeSpec(blocks, planes, 8))
    assert cached_in(trial) == set(names_of(trial)) == {"source", "result"}
