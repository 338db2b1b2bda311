"""Files and answer of the verbs that make a model smaller."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from ...frontend.program_file import export_onnx, save_program
from ...frontend.stored_compute import compute_of
from ...passes.outcome import LayerZeros
from .. import api
from ..answer import Answer, files_line, table
from ..models import LoadedModel
from ..outputs import check_file, check_report
from ..reports.report import Report
from ..reports.tables import latency_table, size_table, structure_table, timing_table

__all__ = ["Outputs", "compacted"]


@dataclass(frozen=True)
class Outputs:
    """Files that a compaction is written to; None for those not wanted, the model's default place for `model`."""

    model: Path | None
    report: Path | None
    plan: Path | None
    onnx: Path | None

    def places(self) -> tuple[Path | None, ...]:
        """All of them; a plan is two files."""
        return self.model, self.report, self.plan, self.onnx

    def checked(self, default: Path) -> Outputs:
        """The same with the model's place filled in. Raises InputError if one of them cannot be written."""
        filled = dataclasses.replace(self, model=self.model or default)
        check_report(self.report)
        for path in filled.places():
            check_file(path)
        return filled


def compacted(loaded: LoadedModel, found: api.Result, places: Outputs) -> Answer:
    """Writes what was asked for and answers with the report."""
    report = dataclasses.replace(found.report, title=loaded.name)
    files = {}
    with stage("writing"):
        if places.model is not None:
            certificate = dataclasses.asdict(found.certificate)
            notes: dict[str, Any] = {
                "certificate": certificate,
                "compute": compute_of(found.module),
                "data": loaded.data,
            }
            save_program(found.module, loaded.example_inputs, places.model, **notes)
            files["model"] = str(places.model)
        if places.plan is not None:
            found.plan.save(places.plan)
            files["plan"] = str(places.plan)
        if places.onnx is not None:
            export_onnx(found.module, loaded.example_inputs, places.onnx)
            files["onnx"] = str(places.onnx)
        if places.report is not None:
            write_text(places.report, report.to_html() if places.report.suffix == ".html" else report.to_json())
            files["report"] = str(places.report)
    return Answer({"report": report.to_dict(), "files": files}, lambda console: show_report(console, report, files))


def show_report(console: Console, report: Report, files: Mapping[str, str]) -> None:
    console.print(size_table(report))
    if report.zeros:
        console.print(structure_table(report.zeros))
    if report.timing is not None:
        console.print(timing_table(report.timing))
    if report.latency:
        console.print(latency_table(report.latency))
    short = [group for group in report.groups if group.got < group.asked]
    if short:
        made = table("group", "asked", "got", "why not more", right=("asked", "got"), title="Less than asked")
        for group in short:
            made.add_row(group.name, str(group.asked), str(group.got), "; ".join(group.reasons))
        console.print(made)
    for line in _sentences(report, {group.name for group in short}):
        console.print(line, markup=False, soft_wrap=True)
    console.print(files_line(files), markup=False, soft_wrap=True)


def _sentences(report: Report, in_table: Set[str]) -> Iterator[str]:
    """What is said below the tables, refusals but for those of groups that were in one."""
    yield from _without_structure(report.zeros)
    for barrier in report.barriers:
        yield f"barrier: {barrier.operator} at {barrier.source or barrier.node}: {barrier.reason}"
    yield from (refusal for refusal in report.refusals if refusal.partition(": ")[0] not in in_table)
    yield from report.recovery.refusals if report.recovery is not None else ()
    yield from report.notes


def _without_structure(zeros: Sequence[LayerZeros]) -> Iterator[str]:
    """Which layers were given no zeros, and why."""
    names: dict[tuple[str, str], list[str]] = {}
    for layer in zeros:
        if layer.reason:
            names.setdefault(("is given no zeros" if layer.zeros else "stays dense", layer.reason), []).append(
                layer.name
            )
    return (f"{said}: {', '.join(alike)}: {reason}" for (said, reason), alike in names.items())
