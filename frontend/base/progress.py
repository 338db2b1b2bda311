"""Saying what is going on, from anywhere in the library, to whoever listens. Nobody listens by default.

Library code writes ``with stage("certificate"): ...`` or ``for x in track(items, "tuning"): ...``; a program that
has a terminal installs a listener with `listening`. Without one both cost a global read and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Protocol, TypeVar

__all__ = ["Listener", "listening", "stage", "track"]

Item = TypeVar("Item")


class Listener(Protocol):
    """Shows stages to a person. Every method may be called from any thread."""

    def begin(self, label: str, total: int | None) -> int:
        """A stage of `total` steps (None: unknown) begins; returns the key that names it."""
        ...

    def advance(self, key: int) -> None:
        """One more step of the stage `key` is done."""
        ...

    def end(self, key: int) -> None:
        """The stage `key` is over, well or not."""
        ...


# One listener for the process, not one for each thread: work that the library hands to threads is shown as well.
_listener: Listener | None = None


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Sends all stages to `listener` (None: to nobody) while the block runs, then to whoever listened before."""
    global _listener
    before, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = before


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Names what the block does. Stages may nest."""
    listener = _listener
    if listener is None:
        yield
        return
    key = listener.begin(label, None)
    try:
        yield
    finally:
        listener.end(key)


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yields `items` and reports each as a step of `label`. `total` defaults to ``len(items)`` where it has one."""
    listener = _listener
    if listener is None:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    key = listener.begin(label, total)
    try:
        for item in items:
            yield item
            listener.advance(key)
    finally:
        listener.end(key)
