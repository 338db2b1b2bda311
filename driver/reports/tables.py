"""A report's numbers as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ...passes.outcome import LayerZeros
from ...passes.pruning.zeros_latency import Timing
from ..answer import table
from ..wording import change, cost, count, density, milliseconds, relative, size, times
from .report import Latency, Report, asked
from .zeros import structure_sums

__all__ = ["latency_table", "size_table", "structure_table", "timing_table"]


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


def timing_table(timing: Timing) -> Table:
    """What was wanted and reached, and one line for every layer that has zeros for it."""
    numbers = ("zeros", "dense", "with zeros", "gain")
    title = f"Time, {timing.told}: {timing.wanted:.3g} of the dense one wanted, {timing.reached:.3g} reached"
    made = table("layer", *numbers, right=numbers, title=title)
    for layer in timing.layers:
        if layer.zeros:
            made.add_row(
                layer.name, f"{layer.zeros:.1%}", cost(layer.dense, timing.unit), cost(layer.sparse, timing.unit),
                times(layer.dense, layer.sparse),
            )  # fmt: skip
    whole = (cost(timing.dense, timing.unit), cost(timing.sparse, timing.unit), times(timing.dense, timing.sparse))
    made.add_row("the network", "", *whole)
    return made


def latency_table(rows: Sequence[Latency]) -> Table:
    """One line for each measurement."""
    names = ("median", "10th", "90th percentile", "runs")
    first = rows[0] if rows else None
    title = f"Latency, batch {first.batch}, {first.threads} thread{'s' * (first.threads != 1)}" if first else "Latency"
    made = table("engine", "network", *names, right=names, title=title)
    for row in rows:
        shown = (milliseconds(value) for value in (row.median_ms, row.p10_ms, row.p90_ms))
        made.add_row(row.engine, row.variant, *shown, str(row.repeats))
    return made
