"""What a verb of the command line found out: once for programs, once for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["Answer", "files_line", "says", "table"]


@dataclass(frozen=True)
class Answer:
    """The result of one verb."""

    data: Mapping[str, Any]
    """For ``--json``; JSON's types only."""
    show: Callable[[Console], None]
    """Writes it for a person."""


def table(*columns: str, right: Sequence[str] = (), title: str | None = None) -> Table:
    """An empty table; numbers stand in the columns named in `right`."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for column in columns:
        # Wrapping is better than cutting a name that somebody wants to copy.
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def files_line(files: Mapping[str, str]) -> str:
    """``wrote model small.pt2, report report.html``."""
    return "wrote " + ", ".join(f"{what} {path}" for what, path in files.items())


def says(*lines: str) -> Callable[[Console], None]:
    """Shows lines that hold paths and names: no markup, not broken."""

    def show(console: Console) -> None:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return show
