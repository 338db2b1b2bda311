"""A queue of requests and the thread that answers them, one after the other."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from .observation import Window
from .switcher import Switcher

__all__ = ["BusyError", "Engine", "OtherVariantError", "Reply"]


class BusyError(Exception):
    """The queue is full.

    Attributes:
        seconds: after which it is worth to ask again.
    """

    def __init__(self, seconds: int, queue: str = "the queue is full") -> None:
        super().__init__(f"{queue}; ask again in {seconds} s")
        self.seconds = seconds


class OtherVariantError(Exception):
    """The request asks for a variant, and another one answers."""


@dataclass(frozen=True)
class Reply:
    """Outputs, and the variant that computed them."""

    variant: str
    outputs: tuple[np.ndarray[Any, Any], ...] = field(repr=False)
    seconds: float
    """From the request's arrival in the queue to its outputs."""
    busy: float
    """What of that was spent on computing."""


@dataclass
class _Job:
    inputs: Sequence[np.ndarray[Any, Any]]
    variant: str | None
    future: asyncio.Future[Reply]
    loop: asyncio.AbstractEventLoop
    arrived: float
    given_up: bool = False


class Engine:
    """Answers requests with the variant that is active when each one's turn comes.

    Everything but the computation happens on the event loop's thread.

    Args:
        limit: how many requests may wait or be computed at a time.
        window: learns how long each took.
    """

    def __init__(self, switcher: Switcher, limit: int, window: Window) -> None:
        self._switcher, self._limit, self._window = switcher, limit, window
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self.pending = 0
        """Requests that wait or are computed."""

    def start(self) -> None:
        self._thread.start()

    async def answer(self, inputs: Sequence[np.ndarray[Any, Any]], variant: str | None = None) -> Reply:
        """The outputs for arrays of the portfolio's shapes and dtypes.

        If it is cancelled, the request leaves the queue. A computation that has begun ends, but nobody waits for it.

        Args:
            variant: refuse if it is not this one that answers.

        Raises:
            BusyError: too many requests wait.
            OtherVariantError: `variant` is not the one that answers.
        """
        if self.pending >= self._limit:
            raise BusyError(max(1, round(self._window.mean_seconds() * self.pending)))
        loop = asyncio.get_running_loop()
        job = _Job(inputs, variant, loop.create_future(), loop, perf_counter())
        self.pending += 1
        self._jobs.put(job)
        try:
            return await job.future
        finally:
            if not job.future.done() or job.future.cancelled():
                # The thread comes to it later, and needs none of it.
                job.given_up, job.inputs = True, ()
                self.pending -= 1

    def close(self) -> None:
        """Ends the thread, after what waits was answered."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._do(job)
            # A job that is over must not keep its inputs until the next one comes.
            del job

    def _do(self, job: _Job) -> None:
        answer: Reply | None = None
        fault: Exception | None = None
        began = perf_counter()
        if not job.given_up:
            try:
                answer = self._computed(job)
            except Exception as error:
                fault = error.with_traceback(None)
        busy = perf_counter() - began
        # A loop that is closed has nobody who waits.
        with suppress(RuntimeError):
            job.loop.call_soon_threadsafe(self._finished, job, answer, fault, busy)

    def _computed(self, job: _Job) -> Reply:
        with self._switcher.lease() as resident:
            name = resident.variant.name
            if job.variant not in (None, name):
                raise OtherVariantError(f"variant '{job.variant}' is not loaded; '{name}' is")
            began = perf_counter()
            outputs = resident.run(job.inputs)
        done = perf_counter()
        return Reply(name, outputs, done - job.arrived, done - began)

    def _finished(self, job: _Job, answer: Reply | None, fault: Exception | None, busy: float) -> None:
        if answer is not None:
            self._window.add(answer.variant, answer.seconds, busy)
        if job.future.done():  # Nobody waits any more.
            return
        self.pending -= 1
        if fault is not None:
            job.future.set_exception(fault)
        elif answer is not None:
            job.future.set_result(answer)
