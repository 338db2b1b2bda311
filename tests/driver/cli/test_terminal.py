"""Progress is shown on a terminal and nowhere else."""

from __future__ import annotations

import io

from rich.console import Console

from reconvene.driver.cli.terminal import showing_progress
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
