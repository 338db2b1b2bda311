"""What a person sees while it works: stages on stderr, when that is a terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..frontend.progress import listening

__all__ = ["showing_progress"]


class ProgressDisplay:
    """A line for every stage that is under way; lines of finished stages go."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._depth = 0
        self._lock = threading.Lock()

    def begin(self, label: str, total: int | None) -> int:
        with self._lock:
            indent = "  " * self._depth
            self._depth += 1
        return int(self._progress.add_task(indent + label, total=total))

    def advance(self, key: int) -> None:
        self._progress.advance(TaskID(key))

    def end(self, key: int) -> None:
        with self._lock:
            self._depth -= 1
        self._progress.remove_task(TaskID(key))


@contextmanager
def showing_progress(console: Console) -> Iterator[None]:
    """Shows the stages of the block on `console` if it is a terminal."""
    if not console.is_terminal:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, listening(ProgressDisplay(progress)):
        yield
