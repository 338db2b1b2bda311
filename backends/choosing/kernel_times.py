"""Times kernels on this machine: those that compute the same against each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm

from ..dtypes import DTYPES
from ..kernels.base import Trial
from ..machines.threads import on_threads

__all__ = ["HereTimes", "arguments_of", "in_cache", "least_times"]

_HOPELESS, _FAIR_TURNS = 1.4, 2
"""A kernel this many times slower than the best after so many turns is not timed again. One turn may be anybody's bad luck."""
_FLUSH_BYTES = 48 * 2**20
"""Written between calls, so that weights come from memory as they do when a whole network runs."""
_WEIGHTS = 1
"""The place of a kernel's weights among its arguments."""

Call = Callable[[], object]


@dataclass(frozen=True)
class HereTimes:
    """Seconds of one call on this machine with `threads` threads, weights and tables not in cache, images in cache.

    Kernels of a group are timed in turns, the slow ones fewer times.

    Attributes:
        rounds: turns of each.
    """

    target: Any
    threads: int
    rounds: int = 4

    def __call__(self, groups: Sequence[Sequence[Trial]]) -> list[list[float]]:
        return self.compiled(groups)()

    def compiled(self, groups: Sequence[Sequence[Trial]]) -> Callable[[], list[list[float]]]:
        """The same in two steps: what is returned only calls what is built."""
        names = [[f"kernel{i}_{j}" for j in range(len(group))] for i, group in enumerate(groups)]
        trials = {
            name: trial
            for row, group in zip(names, groups, strict=True)
            for name, trial in zip(row, group, strict=True)
        }
        named = {name: trial.function.with_attr("global_symbol", name) for name, trial in trials.items()}
        library = tvm.compile(tvm.IRModule(named), target=self.target)
        flush = _Flush()

        def timed(row: Sequence[str]) -> list[float]:
            calls = [_calls(library[name], trials[name]) for name in row]
            return on_threads(self.threads, lambda: least_times(calls, flush, self.threads, self.rounds))

        return lambda: [timed(row) for row in names]


def _calls(compiled: Any, trial: Trial) -> tuple[Call, Call]:
    """A call of a kernel on buffers of its own, and one that brings into cache what lies there in a network."""
    arrays = arguments_of(trial)
    tensors = [tvm.runtime.from_dlpack(array) for array in arrays]
    warm = [arrays[place] for place in in_cache(trial)]
    return lambda: compiled(*tensors), lambda: [array.sum() for array in warm]


def in_cache(trial: Trial) -> list[int]:
    """The places of a kernel's arguments that the kernel before it has just written, or that are small.

    Weights and tables are read once in a pass of a network, and come from memory.
    """
    from_memory = {*trial.tables, *([_WEIGHTS] if trial.weighted else [])}
    return [place for place in range(len(trial.function.params)) if place not in from_memory]


class _Flush:
    """Pushes everything out of the caches."""

    def __init__(self) -> None:
        self._buffer = np.zeros(_FLUSH_BYTES // 8)

    def __call__(self) -> None:
        self._buffer += 1.0


def least_times(calls: Sequence[tuple[Call, Call]], flush: Call, threads: int, rounds: int) -> list[float]:
    """The least time of each call, in turns, so that what disturbs the machine disturbs all of them alike.

    A single thread is timed by its own clock, which stands still while another program has the core.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    least = [math.inf] * len(calls)
    for call, _ in calls:
        call()
    for turn in range(rounds):
        best = min(least)
        for index, (call, warm) in enumerate(calls):
            if turn >= _FAIR_TURNS and least[index] > _HOPELESS * best:
                continue
            flush()
            warm()
            start = clock()
            call()
            least[index] = min(least[index], clock() - start)
    return least


def arguments_of(trial: Trial) -> list[npt.NDArray[Any]]:
    """An array for each of a kernel's parameters, at a multiple of 64 bytes, as TVM's vector loads want it.

    Numbers are all the same and not tiny, which would slow arithmetic down. Tables are zeros, or what the trial has for them.
    """
    arrays = [_filled(parameter) for parameter in trial.function.params]
    for place, table in trial.tables.items():
        arrays[place][:] = table
    return arrays


def _filled(parameter: Any) -> npt.NDArray[Any]:
    shape, dtype = [int(extent) for extent in parameter.shape], str(parameter.dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + 64, "uint8")
    start = -room.ctypes.data % 64
    array = room[start : start + size].view(dtype)
    array[:] = 0.75 if DTYPES[dtype].is_floating_point else 0
    return array.reshape(shape)
