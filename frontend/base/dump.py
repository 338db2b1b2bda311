"""What a module or a graph is after each stage, as text in the folder that ``RECONVENE_DUMP`` names, and for whoever watches.

Library code writes ``reached("read", graph, graph_text)`` behind a stage. Without the variable and without a watcher that
costs a look at both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

__all__ = ["VARIABLE", "Watcher", "is_dumping", "on_trial", "reached", "watching"]

VARIABLE = "RECONVENE_DUMP"
"""Names the environment variable with the folder; files there are only added."""

Value = TypeVar("Value")
Watcher = Callable[[str, Any], None]
"""Called with a stage's name and what has reached it."""

_NUMBERED = re.compile(r"(\d{4,})-\w+\.txt")

_watchers: list[Watcher] = []
_on_trial: ContextVar[bool] = ContextVar("on_trial", default=False)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Calls `watcher` at every stage that is reached while the block runs, in whichever thread."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


@contextmanager
def on_trial() -> Iterator[None]:
    """What is made in the block is tried and thrown away: no text is written of it."""
    token = _on_trial.set(True)
    try:
        yield
    finally:
        _on_trial.reset(token)


def is_dumping() -> bool:
    """Whether texts are written, so that what is made for them alone is worth its time."""
    return bool(os.environ.get(VARIABLE)) and not _on_trial.get()


def reached(stage: str, value: Value, text: Callable[[Value], str]) -> None:
    """Says that `value` is what a stage made. Its `text` goes to the next numbered file, ``0005-read.txt``.

    Raises:
        InputError: the folder cannot be made, or not be written to.
    """
    for watcher in _watchers:
        watcher(stage, value)
    if not is_dumping():
        return
    folder, contents = Path(os.environ[VARIABLE]), text(value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, stage, contents)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot write the stage '{stage}' into '{folder}': {reason}; let {VARIABLE} name a folder that can be written,"
            " or unset it"
        ) from None


def _write(folder: Path, stage: str, contents: str) -> None:
    """Writes the file after the last one there, also where another process writes into the folder."""
    number = max((int(found[1]) for name in os.listdir(folder) if (found := _NUMBERED.fullmatch(name))), default=0)
    while True:
        number += 1
        try:
            stream = open(folder / f"{number:04}-{stage}.txt", "x", encoding="utf-8")  # noqa: SIM115
        except FileExistsError:
            continue
        with stream:
            stream.write(contents + "\n")
        return
