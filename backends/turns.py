"""Locks for what can be used by one thread at a time, which are free in a process that was forked.

A fork waits until they are all free, so that the new process finds nothing half done.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

__all__ = ["new_turn"]

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


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
