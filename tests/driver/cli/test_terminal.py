"""Progress is shown on a terminal and nowhere else."""

from __future__ import annotations

import io

from rich.console import Console

from reconvene.driver.answer import table
from reconvene.driver.cli.terminal import PlainConsole, showing_progress
from reconvene.frontend.base import progress


def test_a_terminal_shows_nested_stages() -> None:
    stream = io.StringIO()
    with showing_progress(Console(file=stream, force_terminal=True, width=80)), progress.stage("pruning"):
        assert list(progress.track([1, 2], "certificate")) == [1, 2]
    assert progress._listener is None
    assert "pruning" in stream.getvalue()


def test_a_pipe_shows_nothing() -> None:
    stream = io.StringIO()
    with showing_progress(Console(file=stream)), progress.stage("pruning"):
        assert progress._listener is None
    assert stream.getvalue() == ""


ODD = "[/a] [bold]b[/] \x1b[2J\r\x9b\ud800 é"
PLAIN = "[/a] [bold]b[/] \\x1b[2J\\r\\x9b\\ud800 é"


def test_names_are_shown_as_they_are() -> None:
    """Whether they stand in a line, a title or a cell, on a terminal or not: a file may have any name, and names in it too."""
    for terminal in (False, True):
        stream = io.StringIO()
        console = PlainConsole(file=stream, force_terminal=terminal, color_system=None, width=200)
        console.print(ODD, soft_wrap=True)
        made = table("x", title=ODD)
        made.add_row(f"{ODD}\n{ODD}")
        console.print(made)
        assert stream.getvalue().count(PLAIN) == 4
        assert "\x9b" not in stream.getvalue() and "\x1b[2J" not in stream.getvalue()


def test_stages_are_shown_as_they_are() -> None:
    stream = io.StringIO()
    with showing_progress(Console(file=stream, force_terminal=True, width=200)), progress.stage(ODD):
        pass
    assert PLAIN in stream.getvalue()
