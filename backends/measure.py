"""Timing callables side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ..frontend.base.errors import InputError
from .machines.threads import on_threads

__all__ = ["Timing", "time_calls", "timing", "torch_threads"]

_SLOW_SECONDS = 0.5
_SECONDS = 5.0
"""What one candidate may take of the timed rounds, judged by its warm-up."""
_LEAST_REPEATS = 3


@dataclass(frozen=True)
class Timing:
    """Wall time of a call in milliseconds, over `repeats` calls with `threads` threads on `batch` images."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    minimum_ms: float
    repeats: int
    threads: int
    batch: int


def time_calls(
    candidates: Mapping[str, Callable[[], object]],
    repeat: int = 50,
    warmup: int = 5,
    *,
    threads: int = 1,
    batch: int = 1,
    settle: float = 0.0,
) -> dict[str, Timing]:
    """Times `candidates` in turns, so that what disturbs the machine disturbs all of them alike.

    Slow candidates are called less often, for about five seconds but at least three times; their timing says
    how often. Compiled code runs on `threads` threads; `batch` is recorded. With `settle`, every timed call comes after that
    many seconds of rest and one call that is not timed, so that the threads of one candidate's pool do not spin in another's
    time.

    Raises:
        InputError: `repeat` is below 1, `warmup` below 0, or there cannot be so many threads.
    """
    if repeat < 1 or warmup < 0:
        raise InputError(f"repeat must be at least 1 and warmup at least 0, got {repeat} and {warmup}")
    wanted = torch.get_num_threads()

    def timed() -> dict[str, list[float]]:
        # PyTorch's setting is of each thread.
        with torch_threads(wanted):
            return _samples(candidates, repeat, warmup, settle)

    return {name: timing(values, threads, batch) for name, values in on_threads(threads, timed).items()}


def _samples(
    candidates: Mapping[str, Callable[[], object]], repeat: int, warmup: int, settle: float
) -> dict[str, list[float]]:
    """Milliseconds of the timed calls of each."""
    rounds: dict[str, int] = {}
    for name, call in candidates.items():
        seconds = _seconds(call)
        for _ in range(0 if seconds > _SLOW_SECONDS else warmup):
            # The first call may wait for memory or other programs; it should not make a candidate look slow.
            seconds = min(seconds, _seconds(call))
        rounds[name] = min(repeat, max(_LEAST_REPEATS, int(_SECONDS / max(seconds, 1e-9))))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeat):
        for name, call in candidates.items():
            if turn < rounds[name]:
                if settle:
                    time.sleep(settle)
                    call()
                samples[name].append(_seconds(call) * 1e3)
    return samples


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def timing(samples: Sequence[float], threads: int, batch: int) -> Timing:
    """The summary of `samples`, milliseconds of single calls."""
    low, median, high = np.percentile(samples, [10, 50, 90])
    return Timing(float(median), float(low), float(high), min(samples), len(samples), threads, batch)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch's thread count within the block; the old one afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
