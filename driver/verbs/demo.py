"""``reconvene demo``: two real networks on real images, pruned, proved, compiled and timed, in one report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.files import write_text
from ...frontend.base.progress import stage
from ..answer import Answer, files_line, table
from ..outputs import check_folder
from ..reports.report import Report, report_page, reports_to_json, speeds
from ..reports.tables import latency_table, size_table
from ..wording import count, milliseconds, relative, times
from .demo_measuring import THREADS
from .demo_trained import efficientnet
from .demo_untrained import COURSES, vgg

__all__ = ["Request", "run"]


@dataclass(frozen=True)
class Part:
    """One network of the demo."""

    name: str
    make: Callable[[], Report]


@dataclass(frozen=True)
class Request:
    """What ``reconvene demo`` is told; see its help."""

    out: Path
    """A folder."""
    repeat: int = 50
    dataset: str = "digits"
    """Of `COURSES`."""


def run(request: Request) -> Answer:
    """Runs both parts and writes ``report.html`` and ``report.json`` into the folder that is asked for.

    A part whose packages or data are missing is left out, and named in the answer and the report.

    Raises:
        InputError: there is no such data set, or the folder cannot be written.
        CheckError: a compacted network does not compute what the masked one does.
    """
    from ...backends.measure import torch_threads

    out, dataset = request.out, request.dataset
    check_folder(out)
    if dataset not in COURSES:
        raise InputError(f"the demo knows no data set '{dataset}'; choose one of {', '.join(COURSES)}")
    reports: list[Report] = []
    skipped: dict[str, str] = {}
    for part in (
        Part(f"VGG-16 on {dataset}", lambda: vgg(dataset, request.repeat)),
        Part("EfficientNet-Lite0 on ImageNet", lambda: efficientnet(request.repeat)),
    ):
        try:
            # On one thread all of it: beside another program, PyTorch's threads wait for each other in every layer.
            with stage(part.name), torch_threads(THREADS):
                reports.append(part.make())
        except InputError as error:
            skipped[part.name] = str(error)
    notes = [f"Skipped: {name}. {reason}" for name, reason in skipped.items()]
    text = reports_to_json(reports, notes)
    files = {"page": str(out / "report.html"), "data": str(out / "report.json")}
    out.mkdir(parents=True, exist_ok=True)
    write_text(files["page"], report_page(reports, "Two networks, pruned and proved", notes))
    write_text(files["data"], text)
    data = {"reports": [report.to_dict() for report in reports], "skipped": skipped, "files": files}
    return Answer(data, lambda console: show(console, reports, skipped, files))


def show(console: Console, reports: list[Report], skipped: dict[str, str], files: dict[str, str]) -> None:
    for report in reports:
        console.print(size_table(report))
        console.print(latency_table(report.latency))
        console.print()
    console.print(summary(reports, skipped))
    for name, reason in skipped.items():
        console.print(f"SKIPPED {name}: {reason}", style="bold red", markup=False, soft_wrap=True)
    console.print(files_line(files), markup=False, soft_wrap=True)


def summary(reports: list[Report], skipped: dict[str, str]) -> object:
    """The one table to remember: a few lines for each network."""
    numbers = ("dense", "compacted", "times")
    made = table("network", *numbers, right=numbers, title="Compacted against dense (one thread, batch 1)")
    for report in reports:
        speed, judged, before, after = speeds(report)[0], report.facts[0], report.before, report.after
        latencies = speed.before.median_ms, speed.after.median_ms
        made.add_row(report.title, "", "", "", style="bold")
        made.add_row("  right", judged.before, judged.after, "")
        fewer = times(before.parameters, after.parameters)
        made.add_row("  parameters", count(before.parameters), count(after.parameters), f"{fewer} fewer")
        made.add_row("  latency", *map(milliseconds, latencies), f"{times(*latencies)} faster")
        made.add_row("  largest difference of the removal", "", relative(report.certificate.max_relative), "")
        made.add_section()
    for name in skipped:
        made.add_row(name, *["SKIPPED"] * len(numbers), style="bold red")
    return made
