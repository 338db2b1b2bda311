"""Several networks trained by turns in one process, for as long as a machine is there.

A small network leaves most of a GPU idle, and the CPU that launches its steps busy. Here every training has a stream of its
own, its steps are recorded (`training.replay`), and networks are pruned ahead of time in other processes.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from threading import Event
from typing import Any

from ..frontend.base.errors import InputError
from ..frontend.data.datasets import Images
from .runs import Environment, Prepared, Run, images_of, line_of, prepared
from .training.hardware import computing
from .training.loop import CHECKPOINT, Trained
from .training.replay import record_on_cuda
from .training.streaming import StreamedTraining, Task

__all__ = ["side_by_side"]

_AHEAD = 2
"""Processes that prune, and networks that are pruned before there is room for them."""


def side_by_side(runs: Sequence[Run], place: Environment, workers: int) -> Iterator[dict[str, Any]]:
    """Lines of the results, as trainings end; the first engine of `sweep.ENGINES` for a GPU.

    Runs that have a checkpoint go first. When `place.seconds` are over, every training under way writes one, and it stops. A
    checkpoint whose line has been taken is removed.

    Raises:
        InputError: a run cannot be done. The others that are under way have checkpoints then, too.
    """
    until = None if place.seconds is None else time.monotonic() + place.seconds
    order = deque(sorted(runs, key=lambda run: not _checkpoint(run, place).exists()))
    if not order:
        return
    images = images_of(order[0], place)
    with _pruners() as pool, computing(place.machine, place.machine.checked()):
        yield from _by_turns(_Waiting(order, place, pool, workers), images, place, until)


@contextmanager
def _pruners() -> Iterator[ProcessPoolExecutor]:
    """Processes that are ended with the block: nobody waits for a network that there is no time to train."""
    others = set(active_children())
    pool = ProcessPoolExecutor(_AHEAD, mp_context=get_context("spawn"), initializer=_end_orderly)
    try:
        yield pool
    finally:
        own = set(active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        for process in own:
            process.terminate()
        for process in own:
            process.join()


_OVER = Event()
"""In a process that prunes: set when it is to end."""


def _end_orderly() -> None:
    """Makes such a process end so that nothing of it is left behind, when it is told to."""

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _OVER.set()
        sys.exit(0)  # Out of a network that is being pruned, or of waiting for the next.

    signal.signal(signal.SIGTERM, end)


def _prepared(run: Run, place: Environment) -> Prepared:
    if _OVER.is_set():  # A process may have taken several networks before.
        raise InputError("there is no time left to prune")
    return prepared(run, place)


class _Waiting:
    """Runs that no training has begun of, some of them being pruned."""

    def __init__(self, runs: deque[Run], place: Environment, pool: ProcessPoolExecutor, workers: int) -> None:
        self.runs, self.place, self.pool, self.workers = runs, place, pool, workers
        self._pruned: deque[Future[Prepared]] = deque()

    def next(self, wait: bool) -> Prepared | None:
        """The next one that is pruned; None if there is none any more, or none yet and it is not to be waited for."""
        while self.runs and len(self._pruned) < self.workers + _AHEAD:
            self._pruned.append(self.pool.submit(_prepared, self.runs.popleft(), self.place))
        if not self._pruned or not (wait or self._pruned[0].done()):
            return None
        return self._pruned.popleft().result()


def _by_turns(
    waiting: _Waiting, images: tuple[Images, Images], place: Environment, until: float | None
) -> Iterator[dict[str, Any]]:
    live: deque[tuple[Prepared, StreamedTraining]] = deque()
    try:
        while until is None or time.monotonic() < until:
            while len(live) < waiting.workers and (made := waiting.next(wait=not live)) is not None:
                live.append((made, _begun(made, images, place)))
            if not live:
                return
            made, training = live.popleft()  # Not to be saved if its step fails.
            if not training.is_over:
                training.turn()
            if not training.is_over:
                live.append((made, training))
                continue
            yield line_of(made, _ended(training), images[0].name, place.machine)
            shutil.rmtree(training.path.parent)
    finally:
        _save([training for _, training in live])


def _save(trainings: Sequence[StreamedTraining]) -> None:
    """All of them, whatever comes of one. Raises InputError if one could not be saved."""
    failures = []
    for training in trainings:
        try:
            training.save()
        except InputError as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _ended(training: StreamedTraining) -> Trained:
    return Trained(training.result(), training.progress.rows, training.progress.seconds)


def _begun(made: Prepared, images: tuple[Images, Images], place: Environment) -> StreamedTraining:
    if made.candidate.method is not None:
        raise InputError(
            f"{made.run.method} finds its zeros in training, which networks side by side cannot; take processes"
        )
    path = _checkpoint(made.run, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = record_on_cuda if place.machine.device.startswith("cuda") else None
    task = Task(made.candidate.module, *images, made.preset, made.candidate.masks, place.machine, made.run.seed)
    return StreamedTraining(task, path, record=record)


def _checkpoint(run: Run, place: Environment) -> Path:
    return place.work / run.key / CHECKPOINT
