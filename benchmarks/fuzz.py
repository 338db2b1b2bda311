"""Random graphs through the compaction passes: masked in float64 against compacted, and against saved and loaded.

    python benchmarks/fuzz.py --graphs 10000 --seed 0 [--jobs 2] [--json docs/results/fuzz.json] [--keep failures/]

Graph i of a seed is always the same, whatever the number of processes. A failure is made small and printed as Python
that runs on its own; with --keep it is also written to that folder. The record is written every few graphs, and
--resume goes on where it ends; Ctrl-C stops in between. Exit code 1 if anything failed.

--captured percent of the graphs go through torch.export as an nn.Module does, the others are made directly in its
vocabulary, which is some ten times faster; --files percent are also saved as a .pt2 file and loaded. All plans are saved,
loaded and applied to a fresh copy. A rule of your own takes part with --recipes, the name of a module that registers it
and says by `fuzzing.recipes.recipe` how to put its operator into a graph; --only makes sure that every graph has one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import multiprocessing
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fuzzing.checking import TOLERANCE, Outcome
from fuzzing.masking import KINDS
from fuzzing.program import Program
from fuzzing.recipes import recipes
from fuzzing.running import Case, run_case, smallest
from fuzzing.source import source

from reconvene.frontend.base.files import write_text
from reconvene.passes.rules import registered

SAVE_EVERY = 100


@dataclass(frozen=True)
class Found:
    """What is kept of one graph."""

    case: Case
    outcome: Outcome
    operators: tuple[str, ...]
    masks: str
    nodes: int
    program: str = ""


@dataclass
class Record:
    """Counts over the graphs of one run, in the order of their numbers."""

    seed: int
    graphs: int = 0
    seconds: float = 0.0
    nodes: int = 0
    pruned: int = 0
    worst: float = 0.0
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def count(self, subject: str, *names: str) -> None:
        """One more graph for each of `names`."""
        self.counts.setdefault(subject, Counter()).update(dict.fromkeys(names, 1))

    def add(self, found: Found) -> None:
        """Takes in one graph."""
        case, outcome = found.case, found.outcome
        self.graphs += 1
        self.nodes += found.nodes
        self.count("outcomes", outcome.kind)
        self.count("masks", found.masks)
        self.count("operators", *found.operators)
        self.count("ways", "captured" if case.captured else "made directly", *(["saved as .pt2"] if case.files else []))
        if outcome.kind == "exact":
            self.pruned += outcome.removed > 0
            self.worst = max(self.worst, outcome.relative)
            self.count("refusals", *outcome.refusals)
            self.count("barriers", *outcome.barriers)
        elif outcome.failed:
            self.failures.append({"number": case.number, "captured": case.captured, "message": told(outcome)})
        else:
            self.count(outcome.kind, f"{outcome.stage}: {outcome.message}")

    def as_json(self) -> dict[str, Any]:
        """For a file; `loaded` reads it."""
        known = registered()
        operators = self.counts.get("operators", Counter())
        return {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "seed": self.seed,
            "graphs": self.graphs,
            "seconds": round(self.seconds, 1),
            "mean_calls": round(self.nodes / max(1, self.graphs), 1),
            "graphs_that_lost_parameters": self.pruned,
            "tolerance": TOLERANCE,
            "largest_relative_difference": self.worst,
            "operators_with_a_rule": len(known),
            "operators_with_a_rule_covered": sum(name in operators for name in known),
            "failures": self.failures,
            **{subject: dict(counter.most_common()) for subject, counter in sorted(self.counts.items())},
        }

    @classmethod
    def loaded(cls, data: dict[str, Any]) -> Record:
        """What `as_json` gave."""
        subjects = {key: Counter(value) for key, value in data.items() if isinstance(value, dict)}
        nodes = round(data["mean_calls"] * data["graphs"])
        return cls(
            data["seed"],
            data["graphs"],
            data["seconds"],
            nodes,
            data["graphs_that_lost_parameters"],
            data["largest_relative_difference"],
            subjects,
            data["failures"],
        )


def told(outcome: Outcome) -> str:
    """One line about a failure."""
    return f"{outcome.kind} at {outcome.stage}: {outcome.message}"


def run(case: Case) -> Found:
    """Checks one graph; makes it small and prints it as a program if it fails."""
    program, outcome = run_case(case)
    text = _printed(program, outcome, case) if outcome.failed else ""
    return Found(case, outcome, tuple(sorted(set(program.operators))), program.kind, len(program.calls), text)


def _printed(program: Program, outcome: Outcome, case: Case) -> str:
    small = smallest(program, outcome, case)
    return source(small, f"Seed {case.seed}, graph {case.number}: {told(outcome)}")


def cases(options: argparse.Namespace, first: int) -> Iterator[Case]:
    """The graphs of a run from number `first` on."""
    only = tuple(name if "." in name else f"aten.{name}" for name in options.only)
    for number in range(first, options.graphs):
        captured, files = number * 37 % 100 < options.captured, number * 73 % 100 < options.files
        yield Case(options.seed, number, captured, files, only, tuple(options.masks))


def checked(work: Iterable[Case], options: argparse.Namespace) -> Iterator[Found]:
    """Every case checked, in order."""
    if options.jobs == 1:
        yield from map(run, work)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.jobs, prepare, (options.recipes,)) as pool:
        yield from pool.imap(run, work, chunksize=8)


def prepare(modules: list[str]) -> None:
    """For each process: one thread, no advice from torch, the recipes of others."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("torch").setLevel(logging.ERROR)
    for module in modules:
        importlib.import_module(module)


def summary(record: Record) -> str:
    """The result in a few lines."""
    data = record.as_json()
    kinds = ", ".join(f"{name} {count}" for name, count in record.counts["outcomes"].most_common())
    masks = ", ".join(f"{name} {count}" for name, count in record.counts["masks"].most_common())
    return "\n".join(
        [
            f"{record.graphs} graphs of seed {record.seed}, {data['mean_calls']} calls each, {record.seconds:.0f} s",
            f"outcomes: {kinds}",
            f"masks: {masks}; {record.pruned} graphs lost parameters",
            f"operators with a rule: {data['operators_with_a_rule_covered']} of {data['operators_with_a_rule']}",
            f"largest relative difference: {record.worst:.1e} (allowed {TOLERANCE})",
            f"failures: {len(record.failures)}",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=1000, help="how many graphs, numbered from 0")
    parser.add_argument("--first", type=int, default=0, help="the number of the first graph, to run a later part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument("--keep", type=Path, help="a folder for the programs of failures")
    parser.add_argument("--resume", action="store_true", help="go on where the record of --json ends")
    parser.add_argument(
        "--masks", nargs="+", default=list(KINDS), choices=KINDS, help="kinds of masks; all unless given"
    )
    parser.add_argument("--captured", type=int, default=5, help="percent of graphs that torch.export captures")
    parser.add_argument("--files", type=int, default=10, help="percent of graphs that are saved as .pt2, too")
    parser.add_argument("--recipes", nargs="*", default=[], help="modules with rules and recipes of your own")
    parser.add_argument("--only", nargs="*", default=[], help="operators of which every graph gets one")
    options = parser.parse_args()
    if options.first >= options.graphs:
        parser.error(f"--first {options.first} is behind the last graph: --graphs {options.graphs} counts from 0")
    sys.path.insert(0, "")
    prepare(options.recipes)
    unknown = [name for name in options.only if (name if "." in name else f"aten.{name}") not in recipes()]
    if unknown:
        parser.error(f"no recipe for '{unknown[0]}'; write one and name its module with --recipes")
    record = Record(options.seed)
    if options.resume and options.json and options.json.exists():
        record = Record.loaded(json.loads(options.json.read_text()))
        if record.seed != options.seed:
            parser.error(f"'{options.json}' is of seed {record.seed}; give that seed or another file")
    before, began = record.seconds, time.perf_counter()
    try:
        for found in checked(cases(options, options.first + record.graphs), options):
            record.add(found)
            record.seconds = before + time.perf_counter() - began
            if found.program:
                print(f"\n{found.program}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    write_text(options.keep / f"seed{options.seed}_graph{found.case.number}.py", found.program)
            if record.graphs % SAVE_EVERY == 0:
                kinds = ", ".join(f"{name} {count}" for name, count in record.counts["outcomes"].most_common())
                print(f"{record.graphs} graphs, {record.seconds:.0f} s: {kinds}", file=sys.stderr, flush=True)
                save(record, options.json)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    save(record, options.json)
    print(summary(record))
    return 1 if record.failures else 0


def save(record: Record, path: Path | None) -> None:
    """Writes the record, if anyone wants it."""
    if path:
        write_text(path, json.dumps(record.as_json(), indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
