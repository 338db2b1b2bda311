"""Times kernels on this machine: candidates of a layer against each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tvm

from ..kernels.alternatives import Candidate
from ..machines.threads import on_threads

__all__ = ["HereTimes", "Judge", "KernelCalls", "TimedCost", "time_kernels"]

_ROUNDS = 4
_SLOW = 1.4
"""A candidate this many times slower than the best of the first round is not timed again."""
_FLUSH_BYTES = 48 * 2**20
"""Written between calls, so that weights come from memory as they do when a whole network runs."""


@dataclass(frozen=True)
class TimedCost:
    """Seconds of one call on this machine with `threads` threads, weights not in cache, images in cache."""

    target: Any
    threads: int

    def __call__(self, layers: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        names = [[f"layer{i}_{j}" for j in range(len(layer))] for i, layer in enumerate(layers)]
        functions = {
            name: candidate.function(name)
            for layer, row in zip(layers, names, strict=True)
            for candidate, name in zip(layer, row, strict=True)
        }
        calls = KernelCalls(functions, self.target)
        flush = _Flush()
        found = [_interleaved({name: calls.prepared(name) for name in row}, flush, self.threads) for row in names]
        return [[times[name] for name in row] for times, row in zip(found, names, strict=True)]


class KernelCalls:
    """TIR functions compiled in one module, each callable on buffers of its own."""

    def __init__(self, functions: Mapping[str, Any], target: Any) -> None:
        named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
        self._library = tvm.compile(tvm.IRModule(named), target=target)
        self._shapes = {
            name: [(tuple(int(n) for n in p.shape), str(p.dtype)) for p in function.params]
            for name, function in functions.items()
        }

    def prepared(self, name: str) -> tuple[Callable[[], object], Callable[[], object]]:
        """A call of the kernel, and one that brings all its arguments but the weights into cache.

        Numbers are all the same and not tiny, which would slow arithmetic down; tables are zeros.
        """
        arrays = [_filled(math.prod(shape), dtype).reshape(shape) for shape, dtype in self._shapes[name]]
        function = self._library[name]
        tensors = [tvm.runtime.from_dlpack(array) for array in arrays]
        warm = [array for index, array in enumerate(arrays) if index != 1]
        return lambda: function(*tensors), lambda: [array.sum() for array in warm]


def time_kernels(functions: Mapping[str, Any], target: Any, threads: int = 1) -> dict[str, float]:
    """The least seconds of one call of each TIR function, of several runs each, as `TimedCost` times them."""
    calls = KernelCalls(functions, target)
    flush = _Flush()
    return {name: _interleaved({name: calls.prepared(name)}, flush, threads)[name] for name in functions}


class Judge(Protocol):
    """Says what TIR functions cost that compute the same: by name, lower is better, comparable within one call."""

    def __call__(self, functions: Mapping[str, Any]) -> dict[str, float]:
        """Seconds, or cycles, of one call of each."""
        ...


@dataclass(frozen=True)
class HereTimes:
    """Seconds on this machine, as `time_kernels` takes them, in turns. The slow ones are timed fewer times."""

    target: Any
    threads: int

    def __call__(self, functions: Mapping[str, Any]) -> dict[str, float]:
        calls = KernelCalls(functions, self.target)
        return _interleaved({name: calls.prepared(name) for name in functions}, _Flush(), self.threads)


class _Flush:
    """Pushes everything out of the caches."""

    def __init__(self) -> None:
        self._buffer = np.zeros(_FLUSH_BYTES // 8)

    def __call__(self) -> None:
        self._buffer += 1.0


def _interleaved(
    calls: Mapping[str, tuple[Callable[[], object], Callable[[], object]]], flush: Callable[[], None], threads: int
) -> dict[str, float]:
    """The least time of each call, in turns, so that what disturbs the machine disturbs all of them alike.

    A single thread is timed by its own clock, which stands still while another program has the core.
    """
    return on_threads(threads, lambda: _least_times(calls, flush, threads))


def _least_times(
    calls: Mapping[str, tuple[Callable[[], object], Callable[[], object]]], flush: Callable[[], None], threads: int
) -> dict[str, float]:
    clock = time.thread_time if threads == 1 else time.perf_counter
    least = dict.fromkeys(calls, math.inf)
    for call, _ in calls.values():
        call()
    for turn in range(_ROUNDS):
        best = min(least.values())
        for name, (call, warm) in calls.items():
            if turn and least[name] > _SLOW * best:
                continue
            flush()
            warm()
            start = clock()
            call()
            least[name] = min(least[name], clock() - start)
    return least


def _filled(size: int, dtype: str) -> Any:
    """An array at a multiple of 64 bytes, as TVM's vector loads want it."""
    bytes_ = size * np.dtype(dtype).itemsize
    room = np.empty(bytes_ + 64, "uint8")
    start = -room.ctypes.data % 64
    array = room[start : start + bytes_].view(dtype)
    array[:] = 0.75 if dtype == "float32" else 0
    return array
