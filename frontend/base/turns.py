"""Locks for what can be used by one thread at a time, which are free in a process that was forked.

A fork waits until they are all free, so that the new process finds nothing half done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from .systems import at_forks

__all__ = ["new_turn", "tracing_in_turn"]

P = ParamSpec("P")
T = TypeVar("T")

_turns: WeakSet[Any] = WeakSet()
_entry = threading.Lock()
"""To `_turns`."""

_held: list[Any] = []


def new_turn() -> Any:
    """A lock that the thread which has it may take again."""
    turn = threading.RLock()
    with _entry:
        _turns.add(turn)
    return turn


_tracing = new_turn()


def tracing_in_turn(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, which threads call one after the other: torch.export has one state for the whole process, and traces of
    two threads would spoil each other.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with _tracing:
            return function(*args, **kwargs)

    return called


def _before_fork() -> None:
    _entry.acquire()
    _held.extend(_turns)
    for turn in _held:
        turn.acquire()


def _after_fork() -> None:
    for turn in _held:
        turn.release()
    _held.clear()
    _entry.release()


at_forks(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
