"""What programs have in common that train many networks: one line of JSON each, and a run goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reconvene.driver.sweep import check_comparable, read_results
from reconvene.driver.training.loop import Hardware
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text
from reconvene.frontend.data.datasets import Images, find_dataset

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"

Line = dict[str, Any]
Times = Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A training, or several that belong together.

    Attributes:
        name: what is said on stderr of it.
        keys: of its lines; it is done where all are there.
        measured: does it, and gives its lines as they are reached.
        told: of a line, what is said of it.
    """

    name: str
    keys: frozenset[str]
    measured: Callable[[], Iterable[Line]]
    told: Callable[[Line], str]


def add_options(parser: argparse.ArgumentParser, name: str, *, seeds: Sequence[int]) -> None:
    """Options that all have; `name` is that of the results and, with dashes, of the folder of checkpoints."""
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--data", type=Path, help="where the data are; else RECONVENE_DATA says")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("out") / name.replace("_", "-"), help="checkpoints")
    parser.add_argument("--results", type=Path, default=FOLDER / f"{name}.jsonl")
    parser.add_argument("--report-only", action="store_true", help="only the page of the lines there are")


def images_of(options: argparse.Namespace) -> tuple[Images, Images]:
    """For training and for the test. Raises InputError where they are not found."""
    dataset = find_dataset(options.dataset)
    return dataset.load(options.data, "train"), dataset.load(options.data, "test")


def hardware_of(options: argparse.Namespace) -> Hardware:
    """One thread of the device asked for, in the precision asked for."""
    return Hardware(options.device, "bfloat16" if options.bfloat16 else "float32", 1)


def swept(jobs: Iterable[Job], lines: Sequence[Line], machine: Hardware, results: Path) -> list[Line]:
    """The lines there are and those that were missing, each written as it is reached. What is refused is told, and left out.

    Raises:
        InputError: lines there are of another precision or kind of device.
    """
    check_comparable(lines, machine, results)
    found = list(lines)
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", encoding="utf-8") as file:
        for line, told in _missing(jobs, {line["key"] for line in lines}):
            found.append(line)
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(told, file=sys.stderr, flush=True)
    return found


def _missing(jobs: Iterable[Job], done: set[str]) -> Iterator[tuple[Line, str]]:
    for job in jobs:
        if job.keys <= done:
            continue
        try:
            for line in job.measured():
                if line["key"] not in done:
                    yield line, f"{job.name}: {job.told(line)}"
        except ReconveneError as error:
            print(f"{job.name}: {error}", file=sys.stderr, flush=True)


def main(
    options: argparse.Namespace,
    sweep: Callable[[Sequence[Line]], list[Line]],
    page: Callable[[Sequence[Line], Times], str],
    timed: Callable[[Sequence[Line]], Times] | None = None,
) -> int:
    """Sweeps, or with ``--latency`` times what is there, and writes the record and its page beside the lines.

    Args:
        options: those of `add_options`, and ``latency`` where there is `timed`.
        sweep: of the lines there are, all.
        page: of lines and their times.
        timed: of lines, their times.
    """
    results, times_path = options.results, options.results.with_suffix(".times.json")
    torch.set_num_threads(1)
    try:
        lines = read_results(results)
        if timed is not None and options.latency:
            write_text(times_path, json.dumps(timed(lines), indent=1) + "\n")
        elif not options.report_only:
            lines = sweep(lines)
    except ReconveneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not lines:
        print(f"error: no results in '{results}' yet", file=sys.stderr)
        return 2
    times = json.loads(times_path.read_text(encoding="utf-8")) if times_path.exists() else {}
    record = {"lines": lines} if timed is None else {"lines": lines, "times": times}
    text = page(lines, times)
    write_text(results.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    write_text(results.with_suffix(".md"), text)
    print(text)
    return 0
