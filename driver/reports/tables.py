"""A report's numbers as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ...passes.outcome import LayerZeros
from ..answer import table
from ..wording import change, count, density, milliseconds, relative, size
from .report import Latency, Report, asked
from .zeros import structure_sums

__all__ = ["latency_table", "size_table", "structure_table"]


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


def structure_table(zeros: Sequence[LayerZeros]) -> Table:
    """One line for every structure of zeros that was found, and what their weights take."""
    numbers = ("layers", "weights", "not zero", "dense", "smallest format")
    made = table("structure", *numbers, right=numbers, title="Zeros inside of layers")
    for found in structure_sums(zeros):
        made.add_row(
            found.structure, str(found.layers), count(found.weights), density(found.weights, found.zeros),
            size(found.dense_bytes), size(found.bytes),
        )  # fmt: skip
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
