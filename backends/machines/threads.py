"""On which threads compiled code runs, and on how many.

TVM keeps a pool of threads for every thread that calls it, as large as the machine, and waits for it when that thread ends;
in a process that was forked it waits forever. So code for one thread runs where it is called, without a pool, and code
for several runs on a worker, which has a pool of just that size and is kept for later calls.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from queue import SimpleQueue
from typing import Any, TypeVar

import tvm
import tvm.base

from ...frontend.base.errors import InputError
from ...frontend.base.systems import at_forks, may_run_on

__all__ = ["MOST_THREADS", "available_threads", "check_threads", "on_threads"]

T = TypeVar("T")

MOST_THREADS = 1024
"""That code for any machine may ask for; its program takes no more."""

# TVM reads this as the most threads that a pool can have in the process.
os.environ.setdefault("TVM_NUM_THREADS", str(os.cpu_count() or 1))

_STRONGEST_CORES_FIRST, _ALL_CORES = 1, -3

_limit = ctypes.CFUNCTYPE(None, ctypes.c_int)(
    ("_ZN3tvm7runtime9threading17SetMaxConcurrencyEi", tvm.base._LOADED_LIBS["tvm_runtime"])
)
"""``SetMaxConcurrency`` of TVM's runtime: the size of the calling thread's pool, before it is made; 1: none is; 0: the
default.
"""


class _Here(threading.local):
    threads = 0
    """What TVM's code on this thread runs on; 0 where that was not said."""


_here = _Here()


@cache
def available_threads() -> int:
    """The most threads a model can run with in this process."""
    setting = os.environ["TVM_NUM_THREADS"]
    return int(setting) if setting.isdigit() and int(setting) > 0 else os.cpu_count() or 1


def check_threads(threads: int, *, here: bool = True) -> None:
    """Raises InputError if `threads` is below 1 or above what there can be, here or on any machine."""
    most = available_threads() if here else MOST_THREADS
    if not 1 <= threads <= most:
        more = "; for more set TVM_NUM_THREADS first" if here else ""
        raise InputError(f"threads must be between 1 and {most}, got {threads}{more}")


def on_threads(threads: int, function: Callable[[], T]) -> T:
    """What `function` gives; TVM's code in it runs on `threads` threads.

    With several it is called on another thread than this one, and this one waits for it.

    Raises:
        InputError: there cannot be so many threads.
    """
    check_threads(threads)
    if _here.threads == threads:
        return function()
    if threads == 1:
        return _alone(function)
    idle = _idle[threads]
    try:
        worker = idle.pop()
    except IndexError:
        worker = _Worker(threads)
    try:
        return worker.result(function)
    finally:
        idle.append(worker)


def _alone(function: Callable[[], T]) -> T:
    before = _here.threads
    _here.threads = 1
    _limit(1)
    try:
        return function()
    finally:
        _limit(before)
        _here.threads = before


@dataclass(eq=False)
class _Job:
    function: Callable[[], Any]
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Taken until it is done."""
    done: bool = False
    value: Any = None
    fault: BaseException | None = None

    def do(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:
            self.fault = error
        self.done = True
        self.lock.release()


class _Worker:
    """A thread with a pool of TVM's."""

    def __init__(self, threads: int) -> None:
        self._jobs: SimpleQueue[_Job] = SimpleQueue()
        # A pool that has the machine to itself is bound to the strongest cores; two that run at a time must not share these.
        bound = not _made[threads]
        _made[threads] += 1
        thread = threading.Thread(target=self._work, args=(threads, bound), name="reconvene", daemon=True)
        thread.start()

    def result(self, function: Callable[[], Any]) -> Any:
        """What `function` gives. An interruption waits for its end: until then it uses memory that others may want next."""
        job = _Job(function)
        job.lock.acquire()
        self._jobs.put(job)
        interruption: BaseException | None = None
        while not job.done:
            try:
                job.lock.acquire()
            except BaseException as error:
                interruption = error
        fault = interruption or job.fault
        if fault is not None:
            raise fault
        return job.value

    def _work(self, threads: int, bound: bool) -> None:
        _here.threads = threads
        _limit(threads)
        configure = tvm.get_global_func("runtime.config_threadpool")
        if bound:
            configure(_STRONGEST_CORES_FIRST, threads)
        else:
            configure(_ALL_CORES, threads, [str(core) for core in may_run_on()])
        while True:
            job = self._jobs.get()
            job.do()
            # What is over must not keep its inputs until the next one comes.
            del job


_idle: defaultdict[int, list[_Worker]] = defaultdict(list)
"""By size of their pools: workers that have nothing to do."""

_made: Counter[int] = Counter()
"""By size of their pools: how many workers there are."""


def _forget_workers() -> None:
    """In a process that was forked there are none."""
    _idle.clear()
    _made.clear()


at_forks(after_in_child=_forget_workers)
