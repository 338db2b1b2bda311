"""What a person sees: stages on stderr while it works, when that is a terminal, and the answer on stdout."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ...frontend.base.errors import InputError
from ...frontend.base.progress import listening
from ...frontend.base.shown_text import shown
from .ending import unheard

if TYPE_CHECKING:
    from ..answer import Answer

__all__ = ["PlainConsole", "answer", "showing_progress"]


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
        return int(self._progress.add_task(indent + shown(label), total=total))

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
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress, listening(ProgressDisplay(progress)):
        yield


class PlainConsole(Console):
    """A console for names that others gave: brackets in them are no markup, and control characters are written out.

    It leaves to `answer` what it means that nobody reads any more; rich itself ends with exit code 1.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def answer(as_json: bool, work: Callable[[], Answer]) -> None:
    """Does `work` and writes its answer to stdout. What the work itself prints goes to stderr."""
    _signals_are_exceptions()
    with redirect_stdout(sys.stderr), showing_progress(PlainConsole(stderr=True)):
        found = work()
    try:
        if as_json:
            print(json.dumps(found.data, indent=2, allow_nan=False))
        else:
            found.show(PlainConsole())
        sys.stdout.flush()
    except BrokenPipeError:
        unheard(1)  # Whoever read our output has seen enough.
    except OSError as error:
        unheard(1)
        raise InputError(
            f"cannot write the answer to stdout: {error.strerror or error}; what the run was to write to files is there"
        ) from None


def _signals_are_exceptions() -> None:
    """From now on, Ctrl-C and SIGTERM let the work put things in order; before, they end the process at once."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _ended)):
        if getattr(signal.getsignal(number), "__qualname__", "") == "_leave":
            signal.signal(number, handler)


def _ended(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
