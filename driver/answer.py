"""What a verb of the command line found out: once for programs, once for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .reports.report import Latency, Report, asked
from .wording import change, count, milliseconds, relative, size

__all__ = ["Answer", "files_line", "latency_table", "size_table", "table"]


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


def size_table(report: Report) -> Table:
    """Sizes before and after, and the certificate."""
    made = table("", "dense", "compacted", "change", right=("dense", "compacted", "change"), title=report.title)
    before, after, groups = report.before, report.after, asked(report)
    made.add_row(
        "parameters", f"{before.parameters:,}", f"{after.parameters:,}", change(before.parameters, after.parameters)
    )
    made.add_row("multiply-accumulates", count(before.macs), count(after.macs), change(before.macs, after.macs))
    made.add_row("bytes of weights", size(before.bytes), size(after.bytes), change(before.bytes, after.bytes))
    if groups.channels:
        left = groups.channels - groups.got
        made.add_row("channels in groups", f"{groups.channels:,}", f"{left:,}", change(groups.channels, left))
    for fact in report.facts:
        made.add_row(fact.label, fact.before, fact.after, "")
    made.add_row("largest difference", "", relative(report.certificate.max_relative), f"in {report.certificate.dtype}")
    return made


def latency_table(rows: Sequence[Latency]) -> Table:
    """One line for each measurement."""
    names = ("median", "10th", "90th percentile", "runs")
    first = rows[0] if rows else None
    title = f"Latency, batch {first.batch}, {first.threads} thread{'s' * (first.threads != 1)}" if first else "Latency"
    made = table("engine", "network", *names, right=names, title=title)
    for row in rows:
        times = (milliseconds(value) for value in (row.median_ms, row.p10_ms, row.p90_ms))
        made.add_row(row.engine, row.variant, *times, str(row.repeats))
    return made


def files_line(files: Mapping[str, str]) -> str:
    """``wrote model small.pt2, report report.html``."""
    return "wrote " + ", ".join(f"{what} {path}" for what, path in files.items())
