"""The report of one pruning: what was asked, what was got, what was refused and why, and what it is worth.

Its JSON is documented in docs/report.md; `SCHEMA` changes when a field changes its meaning or goes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from ...passes.outcome import Barrier, Certificate, Compaction, GroupOutcome, LayerWidth, LayerZeros, Size
from ...passes.pruning.structure_plan import StructurePlan
from ...passes.pruning.zeros_latency import Timing
from ...passes.recovery.least_squares import Recovery
from .measured import Fact, Latency, Speed
from .zeros import MaskPicture, structure_sums, total_storage

__all__ = [
    "SCHEMA",
    "Fact",
    "Latency",
    "Report",
    "Speed",
    "asked",
    "environment",
    "make_report",
    "report_page",
    "reports_to_json",
    "speeds",
]

SCHEMA = "reconvene.report/1"


@dataclass(frozen=True)
class Report:
    """Everything a person or a program may want to know of one pruning."""

    title: str
    options: Mapping[str, Any]
    """What was asked for: method, sparsity, target and so on. JSON values only."""
    before: Size
    after: Size
    layers: tuple[LayerWidth, ...]
    groups: tuple[GroupOutcome, ...]
    barriers: tuple[Barrier, ...]
    refusals: tuple[str, ...]
    certificate: Certificate
    seconds: Mapping[str, float]
    """Wall time by phase."""
    environment: Mapping[str, str]
    """Versions and machine that the numbers hold for."""
    latency: tuple[Latency, ...] = ()
    facts: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences a reader must not miss, such as parts that were skipped."""
    recovery: Recovery | None = None
    """Which layers were solved anew after the removal, if any were to be."""
    zeros: tuple[LayerZeros, ...] = ()
    """Zeros that are left inside of layers, weight by weight; none where no weight has any."""
    timing: Timing | None = None
    """How a latency was reached by zeros inside of layers, if one was aimed at."""
    structures: StructurePlan | None = None
    """The plan that structures were asked for by, if they were by one."""
    pictures: Mapping[str, MaskPicture] = field(default_factory=dict, repr=False)
    """Masks of these weights as images for the page; not part of the JSON."""

    def to_dict(self) -> dict[str, Any]:
        """The report in JSON's types, with the name and version of its schema."""
        said = dataclasses.asdict(self)
        del said["pictures"]
        return {"schema": SCHEMA, **said}

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def to_html(self) -> str:
        """The report as one HTML page that needs no network."""
        return report_page((self,), title=self.title)

    def with_latency(self, latency: Iterable[Latency]) -> Report:
        """The same report with times measured later."""
        return dataclasses.replace(self, latency=tuple(latency))


@dataclass(frozen=True)
class Asked:
    """Channels over all groups."""

    channels: int = 0
    asked: int = 0
    got: int = 0
    refused: tuple[GroupOutcome, ...] = field(default=())


def make_report(compaction: Compaction, title: str, options: Mapping[str, Any]) -> Report:
    """The report of `compaction`, which was asked for with `options`."""
    return Report(
        title=title,
        options=dict(options),
        before=compaction.before,
        after=compaction.after,
        layers=compaction.layers,
        groups=compaction.groups,
        barriers=compaction.barriers,
        refusals=compaction.refusals,
        certificate=compaction.certificate,
        seconds=dict(compaction.seconds),
        environment=environment(),
        notes=(*compaction.notes, *_sizes(compaction)),
        zeros=compaction.zeros,
    )


def with_nothing_removed(report: Report) -> Report:
    """The report with a note where no channel of the model could go, and why."""
    if any(layer.channels_after < layer.channels_before for layer in report.layers) or report.after != report.before:
        return report
    return dataclasses.replace(report, notes=(f"nothing was removed: {_why_nothing(report)}", *report.notes))


def _why_nothing(report: Report) -> str:
    short = [group for group in report.groups if group.got < group.asked]
    if report.refusals:
        return f"see what was refused, such as {report.refusals[0]}"
    if report.options["action"] == "prune" and short:
        return f"see what was asked for, such as {short[0].asked} channels of {short[0].name}: {'; '.join(short[0].reasons)}"
    if report.options["action"] == "prune" and report.options.get("ignore"):
        alone = ", ".join(f"'{pattern}'" for pattern in report.options["ignore"])
        return f"what could go is to be left alone, by {alone}"
    if report.options["action"] == "prune":
        return "the share is less than a channel of every layer; ask for a larger one"
    if any(layer.zeros for layer in report.zeros):
        return "its zeros lie inside of channels, of which none is zero as a whole; 'compile' makes use of them"
    return "no channel of it is zero; decide which are to go with 'prune', or give masks"


def _sizes(compaction: Compaction) -> tuple[str, ...]:
    """Which sizes of the inputs may vary, and why others are fixed."""
    sizes = getattr(compaction.module, "meta", {}).get("input_sizes")
    return sizes.describe() if sizes is not None else ()


def reports_to_json(reports: Iterable[Report], notes: Iterable[str] = ()) -> str:
    """Several reports as one JSON text: ``{"schema": ..., "reports": [...], "notes": [...]}``."""
    document = {"schema": SCHEMA, "reports": [report.to_dict() for report in reports], "notes": list(notes)}
    return json.dumps(document, indent=2, allow_nan=False)


def report_page(reports: Sequence[Report], title: str, notes: Sequence[str] = ()) -> str:
    """One page with `reports` under one another, `notes` above them."""
    # Plotly takes its time, and most who want a report want no page.
    from markupsafe import Markup

    from .figures import density_figure, figure_html, latency_figure, layer_figures, plan_figures
    from .page import render

    def section(report: Report) -> dict[str, Any]:
        latency = latency_figure(report.latency)
        return {
            "report": report,
            "asked": asked(report),
            "speeds": speeds(report),
            "structures": structure_sums(report.zeros),
            "storage": total_storage(report.zeros),
            "plots": [(heading, Markup(figure_html(figure))) for heading, figure in layer_figures(report.layers)],
            "latency_plot": None if latency is None else Markup(figure_html(latency)),
            "density_plot": Markup(figure_html(density_figure(report.zeros))) if report.zeros else None,
            "plan_plots": [
                (heading, Markup(figure_html(figure))) for heading, figure in plan_figures(report.structures)
            ],
        }

    return render("report.html.j2", title=title, sections=[section(report) for report in reports], notes=notes)


def speeds(report: Report) -> tuple[Speed, ...]:
    """Engines measured both before and after, in the order they were measured in."""
    measured = {(row.engine, row.variant): row for row in report.latency}
    engines = dict.fromkeys(row.engine for row in report.latency)
    return tuple(
        Speed(engine, measured[engine, "dense"], measured[engine, "compacted"])
        for engine in engines
        if (engine, "dense") in measured and (engine, "compacted") in measured
    )


def asked(report: Report) -> Asked:
    """What all groups together were asked and gave, and those that gave less."""
    return Asked(
        channels=sum(group.channels for group in report.groups),
        asked=sum(group.asked for group in report.groups),
        got=sum(group.got for group in report.groups),
        refused=tuple(group for group in report.groups if group.got < group.asked),
    )


def environment() -> dict[str, str]:
    """Versions and machine, for the reader who wants to measure again."""
    import os
    import platform

    versions = {name: installed(name) for name in ("reconvene", "torch", "apache-tvm", "numpy")}
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs"
    return {"python": platform.python_version(), **versions, "system": platform.system(), "machine": machine}


def installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
