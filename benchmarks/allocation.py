"""Who decides how much every layer loses: RL-Pruner's search against equal shares, magnitudes, Taylor scores and a knapsack.

    python benchmarks/allocation.py                                        # ResNet-20; goes on where it was stopped
    python benchmarks/allocation.py --model vgg16-cifar --width 0.5
    python benchmarks/allocation.py --rewards macs latency                 # what a reward by time gains on the target
    python benchmarks/allocation.py --latency          # times of what the work folder has, on a machine without other work
    python benchmarks/allocation.py --report-only                          # the page of the runs there are

A dense network of each seed is trained first (DENSE). From it every rule of `reconvene shrink` removes 20, 40 and 60 % of
the filters, with the same images held out, the same teacher at first and, for a share, the same number of epochs in all.
Rules that go step by step pass the smaller shares on the way to the largest, and are told at each; the others are run for
each. ``dense`` is the dense network, trained on for as many epochs with itself as its teacher. The schedule is the preset
rl-pruner-laptop's, which says how much shorter it is than the authors'.

Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or --data). Results: one line of JSON a network, and a page
beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import resumable
from accuracy_page import spread
from latency import cpu_name

from reconvene.driver.models import load_model
from reconvene.driver.reports.latency import measure
from reconvene.driver.reports.report import environment
from reconvene.driver.shrinking.course import ONCE, RL_PRUNER, RULES, Settings, settings_of
from reconvene.driver.shrinking.held_out import split
from reconvene.driver.shrinking.shrink import Task, accuracy_on_tests, model_of, shrink
from reconvene.driver.shrinking.steps import Step
from reconvene.driver.training.evaluation import accuracy, answers
from reconvene.driver.training.loop import Hardware, train
from reconvene.driver.training.presets import find_preset
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.data.datasets import Images
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.program_file import load_program

DENSE = {"epochs": 15, "milestones": (8.0, 12.0), "train_images": 20000, "test_images": 10000}
"""How the preset ``laptop`` is changed for the networks that rules begin with."""
SHARES = (0.2, 0.4, 0.6)
PRESET = f"{RL_PRUNER}-laptop"
PHASES = ("search", "removal", "training")


@dataclass(frozen=True)
class Run:
    """One network that is made smaller, to one share or over several."""

    model: str
    width: float
    dataset: str
    rule: str
    reward: str
    seed: int
    shares: tuple[float, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        reward = f"-{self.reward}" if self.rule == RL_PRUNER else ""
        return f"{self.model}-{self.width:g}-{self.rule}{reward}-{self.shares[-1]:g}-{self.seed}"

    def key(self, share: float, settings: Settings, dense: Mapping[str, Any]) -> str:
        """Of the line of a share: what it would be another network for."""
        told = {**asdict(self), "share": share, "dense": {**dense}, **settings.recorded()}
        del told["shares"]
        told["course"] = {**told["course"], "sparsity": self.shares[-1]}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def runs(options: argparse.Namespace) -> list[Run]:
    """Those of a seed together, since they begin with the same network."""
    found = []
    common = (options.model, options.width, options.dataset)
    shares = tuple(sorted(options.shares))
    for seed in options.seeds:
        for rule in options.rules:
            for reward in options.rewards if rule == RL_PRUNER else ("accuracy",):
                parts = [(share,) for share in shares] if rule in (*ONCE, "dense") else [shares]
                found += [Run(*common, rule, reward, seed, part) for part in parts]
    return found


@dataclass(frozen=True)
class Place:
    """What all runs have in common."""

    images: tuple[Images, Images]
    work: Path
    machine: Hardware
    target: str
    changes: Mapping[str, Any]
    """Of the preset's settings."""
    dense: Mapping[str, Any]
    """Changes of the dense networks' preset."""

    def settings(self, run: Run) -> Settings:
        """The preset's, with the rule and its largest share. The dense network's are those of a rule that trains once."""
        rule = "taylor" if run.rule == "dense" else run.rule
        return settings_of(PRESET, run.reward, {"rule": rule, "sparsity": run.shares[-1], **self.changes})

    def begun(self, run: Run) -> tuple[CapturedModule, tuple[Any, ...], float]:
        """The dense network that a run begins with, inputs of one call, and its accuracy."""
        loaded = load_model(run.model, (), run.seed, ("batch",), dataset=run.dataset, width=run.width)
        assert isinstance(loaded.module, CapturedModule)
        folder = self.work / f"{run.model}-{run.width:g}-dense-{run.seed}"
        preset = find_preset("laptop").changed(self.dense)
        done = train(loaded.module, *self.images, preset, folder, machine=self.machine, seed=run.seed)
        assert isinstance(done.module, CapturedModule)
        return done.module, loaded.example_inputs, done.score


def measured(run: Run, place: Place) -> Iterator[dict[str, Any]]:
    """A line for each share, as it is reached."""
    module, inputs, dense = place.begun(run)
    settings = place.settings(run)
    if run.rule == "dense":
        yield {**_head(run, place, run.shares[-1], dense), **_trained_on(run, place, module)}
        return
    task = Task(
        module,
        inputs,
        *place.images,
        settings,
        place.work / run.name,
        place.target,
        machine=place.machine,
        seed=run.seed,
    )
    steps: list[Step] = []
    waiting = list(run.shares)
    for step in shrink(task):
        steps.append(step)
        reached = len(steps) - 1 >= settings.course.steps
        while waiting and step.number and (reached or step.number * settings.course.step >= waiting[0] - 1e-9):
            share = waiting.pop(0)
            yield {**_head(run, place, share, dense), **_line(task, share, steps)}


def _head(run: Run, place: Place, share: float, dense: float) -> dict[str, Any]:
    settings = place.settings(run)
    return {
        "key": run.key(share, settings, place.dense),
        **{name: value for name, value in asdict(run).items() if name != "shares"},
        "share": share,
        "dense": dense,
        "target": place.target,
        "dense_preset": {**place.dense},
        "settings": settings.recorded(),
        "train_images": settings.preset.train_images,
        "test_images": settings.preset.test_images,
        "precision": place.machine.precision,
        "device": place.machine.device,
        "threads": place.machine.threads,
        "environment": environment(),
    }


def _line(task: Task, share: float, steps: Sequence[Step]) -> dict[str, Any]:
    """What a run has come to, and what that took."""
    first, last = steps[0], steps[-1]
    removals = steps[1:]
    times = task.settings.course.planned if task.settings.course.rule in ONCE else len(removals)
    return {
        "accuracy": accuracy_on_tests(task, last),
        "before": last.pruned,
        "held_out": last.after,
        "filters": last.filters / first.filters,
        "macs": last.macs / first.macs,
        "parameters": last.parameters / first.parameters,
        "latency": (last.latency or 0.0) / (first.latency or 1.0),
        "epochs": times * task.settings.preset.epochs,
        "seconds": {phase: round(sum(step.seconds.get(phase, 0.0) for step in removals), 1) for phase in PHASES},
        "candidates": sum(step.asked for step in removals),
        "resets": sum(step.reset for step in removals),
        "widths": dict(last.widths),
        "file": str(model_of(Path(task.folder.name), last)),
    }


def _trained_on(run: Run, place: Place, module: CapturedModule) -> dict[str, Any]:
    """The dense network, trained for as long as the others of its share."""
    settings = place.settings(run)
    rest, held = split(place.images[0], settings.course.held_out)
    preset = dataclasses.replace(settings.training, test_images=0)
    done = train(
        module, rest, held, preset, place.work / run.name, teacher=module, machine=place.machine, seed=run.seed
    )
    test = place.images[1]
    whole = {"filters": 1.0, "macs": 1.0, "parameters": 1.0, "latency": 1.0}
    return {
        "accuracy": accuracy(answers(done.module, test, settings.preset.test_images), test),
        "before": None,
        "held_out": done.score,
        **whole,
        "epochs": preset.epochs,
        "seconds": {"search": 0.0, "removal": 0.0, "training": round(done.seconds, 1)},
        "candidates": 0,
        "resets": 0,
        "widths": {},
        "file": None,
    }


def points(lines: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """Points of accuracy more than others have, by pairs of equal seeds; a dash where there are none."""
    by = {line["seed"]: line["accuracy"] for line in others}
    pairs = [100 * (line["accuracy"] - by[line["seed"]]) for line in lines if line["seed"] in by]
    return spread(pairs, "+.1f") if pairs else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def spelled(line: Mapping[str, Any]) -> str:
    """The rule, and its reward if that is another than accuracy."""
    return line["rule"] if line["reward"] == "accuracy" else f"{line['rule']}, {line['reward']}"


def tables(lines: Sequence[Mapping[str, Any]], times: Mapping[str, float]) -> str:
    """One for each share: accuracy, what is left, and what it cost."""
    parts = []
    for share in sorted({line["share"] for line in lines}):
        some = [line for line in lines if line["share"] == share]
        by: dict[str, list[Mapping[str, Any]]] = {}
        for line in some:
            by.setdefault(spelled(line), []).append(line)
        uniform = by.get("uniform", [])
        rows = [_row(name, found, uniform, times) for name, found in by.items()]
        head = [
            f"{share:.0%} of the filters", "accuracy %", "points above uniform", "MACs %", "parameters %", "modelled time %",
            "compiled ms", "epochs", "hours", "search, removal, training %",
        ]  # fmt: skip
        parts.append(table(head, rows) + "\n")
    return "\n".join(parts)


def _row(
    name: str, found: Sequence[Mapping[str, Any]], uniform: Sequence[Mapping[str, Any]], times: Mapping[str, float]
) -> list[str]:
    def mean(what: str) -> str:
        return f"{100 * statistics.fmean(line[what] for line in found):.1f}"

    spent = {phase: sum(line["seconds"][phase] for line in found) for phase in PHASES}
    whole = max(sum(spent.values()), 1e-9)
    compiled = [times[line["key"]] for line in found if line["key"] in times]
    return [
        name,
        spread([100 * line["accuracy"] for line in found], ".1f"),
        "–" if name == "uniform" else points(found, uniform),
        mean("macs"),
        mean("parameters"),
        mean("latency"),
        f"{statistics.fmean(compiled):.3f}" if compiled else "–",
        str(found[0]["epochs"]),
        f"{whole / len(found) / 3600:.2f}",
        ", ".join(f"{100 * spent[phase] / whole:.0f}" for phase in PHASES),
    ]


def page(lines: Sequence[Mapping[str, Any]], times: Mapping[str, Any]) -> str:
    """Tables for every network."""
    first = lines[0]
    networks: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        networks.setdefault(f"{line['model']}, width {line['width']:g}", []).append(line)
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    told = first["settings"]
    text = [
        "---\norphan: true\n---\n\n# Who decides what every layer loses\n",
        f"Made by `benchmarks/allocation.py`: {first['dataset']}, {first['precision']}, {first['threads']} thread(s) a run;"
        f" {setting}. Dense networks are trained with the preset laptop, changed by {first['dense_preset']}. Then steps of"
        f" {told['course']['step']:.0%} of the filters, {told['preset']['epochs']} epoch(s) of"
        f" {first['train_images'] or 'all'} images after each; candidates and teachers are chosen on"
        f" {told['course']['held_out']:.0%} of the training images, which nothing is trained on, and accuracies are those on"
        f" {first['test_images'] or 'all'} test images, means over seeds with sample standard deviations. What is left is in"
        f" % of the dense network, the modelled time that of {first['target']}.\n",
    ]
    for name, some in networks.items():
        seeds = sorted({line["seed"] for line in some})
        dense = {line["seed"]: line["dense"] for line in some}
        text += [
            f"## {name}, seeds {', '.join(map(str, seeds))}\n",
            f"The dense networks at the beginning: {spread([100 * value for value in dense.values()], '.1f')} %.\n",
            tables(some, times.get("ms", {})),
        ]
    if where := times.get("where"):
        text.append(f"Times: {where}, one thread, one image, float32.\n")
    return "\n".join(text)


def timed(lines: Sequence[Mapping[str, Any]], work: Path) -> dict[str, Any]:
    """Milliseconds of the compiled networks of the first seed, by key; those of a network take turns."""
    made = {}
    for line in lines:
        if line["file"] and line["seed"] == lines[0]["seed"] and (work / line["file"]).is_file():
            module, inputs = load_program(work / line["file"])
            made[line["key"]] = (module, tuple(value[:1] for value in inputs or ()))
    if not made:
        raise InputError(f"'{work}' has none of the networks of the results; name the folder of their runs with --work")
    rows = measure(made, threads=1, engines=("reconvene",))
    return {
        "where": f"{cpu_name()}, {environment()['apache-tvm']}",
        "ms": {row.variant: row.median_ms for row in rows},
    }


def swept(options: argparse.Namespace, lines: Sequence[resumable.Line]) -> list[resumable.Line]:
    """The lines there are and those that were missing."""
    changes = dict(change.split("=", 1) for change in options.set)
    dense = {**DENSE, **dict(change.split("=", 1) for change in options.dense_set)}
    machine = resumable.hardware_of(options)
    place = Place(resumable.images_of(options), options.work, machine, options.target, changes, dense)
    jobs = (
        resumable.Job(
            run.name,
            frozenset(run.key(share, place.settings(run), place.dense) for share in run.shares),
            partial(measured, run, place),
            lambda line: f"{line['accuracy']:.2%} at {line['share']:.0%}",
        )
        for run in runs(options)
    )
    return resumable.swept(jobs, lines, machine, options.results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rules", nargs="+", default=["dense", *RULES], choices=("dense", *RULES))
    parser.add_argument("--rewards", nargs="+", default=["accuracy"], help="of rl-pruner")
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--target", default="rpi4")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help=f"changes of {PRESET}")
    parser.add_argument("--dense-set", nargs="*", default=[], metavar="NAME=VALUE", help="changes of the dense preset")
    parser.add_argument("--latency", action="store_true", help="only measure times of what is there")
    resumable.add_options(parser, "allocation", seeds=[0, 1])
    options = parser.parse_args()
    return resumable.main(options, lambda lines: swept(options, lines), page, lambda lines: timed(lines, options.work))


if __name__ == "__main__":
    sys.exit(main())
