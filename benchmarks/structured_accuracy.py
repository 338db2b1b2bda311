"""Accuracy under structures, by the method that finds the zeros: one-shot, gradual, ADMM, reweighted, SR-STE, and without data.

    python benchmarks/structured_accuracy.py --bfloat16                    # the whole protocol; goes on where it was stopped
    python benchmarks/structured_accuracy.py --bfloat16 --model vgg16 --width 0.5 --structures pattern:0.5556 pattern:0.8765
    python benchmarks/structured_accuracy.py --latency       # times of what the results have, on a machine without other work
    python benchmarks/structured_accuracy.py --report-only                 # the page of the runs there are

A dense network of each seed is trained first (DENSE). From it every method takes the same number of epochs on the same images
(FURTHER), the dense network itself, too, which is what the others are compared with. ``without data`` is layer-wise ADMM on
synthetic images, for channels the removal with least squares; then, as a client would, training with the masks. ``distilled``
is one-shot with the dense network as its teacher. The protocol is for two cores: it compares methods with each other, and says
nothing about records.

Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or --data). Results: one line of JSON a run, and a page beside
it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
import resumable
from accuracy_page import spread
from latency import cpu_name

from reconvene import compact, prune
from reconvene.driver.models import load_model
from reconvene.driver.reports.latency import measure
from reconvene.driver.reports.report import environment
from reconvene.driver.training.evaluation import accuracy, answers
from reconvene.driver.training.loop import Hardware, Trained, train
from reconvene.driver.training.masks import Masks
from reconvene.driver.training.presets import Preset, find_preset
from reconvene.driver.training.recipes import preset_method
from reconvene.frontend.data.datasets import Images
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.pruning.methods.base import TrainingMethod
from reconvene.passes.pruning.methods.constrained import CHANNELS

RESULTS = """## Accuracy under structures

What methods that find zeros in training keep of the accuracy, by structure: [the tables](results/structured_accuracy.md).
"""
"""The section of the results."""
DENSE = {"epochs": 15, "milestones": (8.0, 12.0), "train_images": 20000, "test_images": 10000}
"""How the preset ``laptop`` is changed for the networks that methods begin with."""
FURTHER = {"epochs": 4, "test_images": 10000}
"""And each method's preset."""
STRUCTURES = (
    "channels:0.5", "row-block:4:0.8", "block-punched:8x4:0.8", "pattern:0.5556", "pattern:0.8765", "2:4", "1:4", "2:4:4",
    "1:4:4", "bcr:16x8:0.75", "unified:4x4:0.8",
)  # fmt: skip
"""With their share of zeros, unless they say it themselves."""
METHODS = ("dense", "one-shot", "gradual", "admm", "reweighted", "sr-ste", "without data", "distilled")


@dataclass(frozen=True)
class Cell:
    """One training."""

    model: str
    width: float
    dataset: str
    method: str
    structure: str | None
    sparsity: float | None
    seed: int

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def spelled(self) -> str:
        return f"{self.structure or 'dense'}{'' if self.sparsity is None else f' {self.sparsity:.0%}'}"


def with_share(text: str) -> tuple[str, float | None]:
    """``structure:share`` as its parts; a structure that says its share itself has none."""
    name, _, share = text.rpartition(":")
    return (name, float(share)) if "." in share else (text, None)


def cells(options: argparse.Namespace) -> list[Cell]:
    """Those of a seed together, since they begin with the same network."""
    found = []
    for seed in options.seeds:
        for structure in options.structures:
            for method in options.methods:
                parts = (None, None) if method == "dense" else with_share(structure)
                found.append(Cell(options.model, options.width, options.dataset, method, *parts, seed))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Place:
    """What all trainings have in common."""

    images: tuple[Images, Images]
    work: Path
    machine: Hardware

    def trained(self, name: str, module: CapturedModule, preset: Preset, seed: int, **how: Any) -> Trained:
        return train(module, *self.images, preset, self.work / name, machine=self.machine, seed=seed, **how)

    def accuracy_of(self, module: CapturedModule) -> float:
        _, test = self.images
        return accuracy(answers(module, test), test)


def begun(cell: Cell, place: Place) -> tuple[Trained, tuple[Any, ...]]:
    """The dense network that a cell begins with, and inputs of one call."""
    loaded = load_model(cell.model, (), cell.seed, ("batch",), dataset=cell.dataset, width=cell.width)
    assert isinstance(loaded.module, CapturedModule)
    name = f"{cell.model}-{cell.width:g}-{cell.seed}"
    preset = find_preset("laptop").changed(DENSE)
    return place.trained(name, loaded.module, preset, cell.seed), loaded.example_inputs


def method_of(cell: Cell) -> tuple[TrainingMethod | None, Preset]:
    """How a cell is trained on from the dense network."""
    recipe = {"dense": "one-shot", "without data": "one-shot", "distilled": "one-shot"}.get(cell.method, cell.method)
    name = f"{recipe}-laptop"
    preset, method = find_preset(name).changed(FURTHER), preset_method(name)
    assert method is not None
    if cell.method == "dense":
        return None, preset
    told = {"structure": cell.structure} | ({} if cell.sparsity is None else {"sparsity": cell.sparsity})
    return method.with_options(told), preset


def without_data(cell: Cell, dense: CapturedModule, inputs: tuple[Any, ...]) -> CapturedModule:
    """The network pruned by whoever has no data: its channels gone, or of a structure layer by layer."""
    share = {} if cell.sparsity is None else {"sparsity": cell.sparsity}
    if cell.structure == CHANNELS:
        made = prune(dense, inputs, recover="least-squares", seed=cell.seed, **share)
    else:
        made = prune(dense, inputs, "layerwise", structure=cell.structure, seed=cell.seed, **share)
    assert isinstance(made.module, CapturedModule)
    return made.module


def measured(cell: Cell, place: Place) -> dict[str, Any]:
    """The line of a cell."""
    dense, inputs = begun(cell, place)
    assert isinstance(dense.module, CapturedModule)
    method, preset = method_of(cell)
    module, before, masks = dense.module, dense.score, None
    if cell.method == "without data":
        module = without_data(cell, dense.module, inputs)
        before = place.accuracy_of(module)
        if not cell.spelled.startswith("unified"):
            # Channels that went may have been of blocks: the zeros that there are stay, whatever they are blocks of by now.
            method, masks = None, None if cell.structure == CHANNELS else Masks.of(module).kept
    teacher = dense.module if cell.method == "distilled" else None
    done = place.trained(cell.key, module, preset, cell.seed, method=method, masks=masks, teacher=teacher)
    report = compact(done.module, inputs).report
    packed = sum(min(layer.storage.values()) - layer.storage["dense"] for layer in report.zeros)
    return {
        "key": cell.key,
        **asdict(cell),
        "dense": dense.score,
        "before": before,
        "accuracy": done.score,
        "epochs": preset.epochs,
        "images": preset.train_images,
        "test_images": preset.test_images,
        "dense_preset": {**DENSE},
        "parameters": report.after.parameters - sum(layer.zeros for layer in report.zeros),
        "bytes": 4 * report.after.parameters + packed,
        "seconds": done.seconds,
        "precision": place.machine.precision,
        "device": place.machine.device,
        "threads": place.machine.threads,
        "environment": environment(),
    }


def grouped(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Lines by structure with its share, and by method."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    names = {field.name for field in dataclasses.fields(Cell)}
    for line in lines:
        cell = Cell(**{name: line[name] for name in names})
        found.setdefault(cell.spelled, {}).setdefault(cell.method, []).append(line)
    return found


def by_network(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault(f"{line['model']}, width {line['width']:g}", []).append(line)
    return found


def points(lines: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """Points of accuracy more than others have, by pairs of equal seeds; a dash where there are none."""
    by = {line["seed"]: line["accuracy"] for line in others}
    pairs = [100 * (line["accuracy"] - by[line["seed"]]) for line in lines if line["seed"] in by]
    return spread(pairs, "+.1f") if pairs else "–"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def tables(lines: Sequence[Mapping[str, Any]], times: Mapping[str, float]) -> str:
    """Accuracy by structure and method, points from the dense network and from one-shot, and what the zeros leave."""
    by = grouped(lines)
    dense = by.pop("dense", {}).get("dense", [])
    methods = [name for name in METHODS if any(name in found for found in by.values())]
    sizes = ["parameters", "packed kB", "compiled ms"]

    def compared(with_these: Callable[[dict[str, list[Mapping[str, Any]]]], Sequence[Mapping[str, Any]]]) -> str:
        return table(
            ["zeros", *methods],
            [
                [name, *(points(found.get(method, []), with_these(found)) for method in methods)]
                for name, found in by.items()
            ],
        )

    def sizes_of(name: str, some: Sequence[Mapping[str, Any]]) -> list[str]:
        kept = statistics.median(line["parameters"] for line in some)
        size = statistics.median(line["bytes"] for line in some) / 1e3
        return [f"{kept:,.0f}", f"{size:,.0f}", f"{times[name]:.3f}" if name in times else "–"]

    rows = [["dense", *[""] * len(methods), *(sizes_of("dense", dense) if dense else ["–"] * 3)]]
    if dense:
        rows[0][1] = spread([100 * line["accuracy"] for line in dense], ".1f")
    for name, found in by.items():
        cells = [
            spread([100 * line["accuracy"] for line in found[method]], ".1f") if method in found else "–"
            for method in methods
        ]
        rows.append([name, *cells, *sizes_of(name, next(iter(found.values())))])
    parts = [
        "Accuracy, %, after training.\n",
        table(["zeros", *methods, *sizes], rows),
        "\nPoints more than the dense network, trained as long, by pairs of equal seeds.\n",
        compared(lambda _: dense),
        "\nPoints more than one-shot.\n",
        compared(lambda found: found.get("one-shot", [])),
    ]
    before = [
        [name, spread([100 * line["before"] for line in found["without data"]], ".1f")]
        for name, found in by.items()
        if "without data" in found
    ]
    if before:
        parts += [
            "\nPruned without data, before it is trained with the masks.\n",
            table(["zeros", "accuracy %"], before),
        ]
    return "\n".join(parts)


def page(lines: Sequence[Mapping[str, Any]], times: Mapping[str, Mapping[str, float]]) -> str:
    """A table for every network."""
    first = lines[0]
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    text = [
        "---\norphan: true\n---\n\n# Accuracy under structures\n",
        f"Made by `benchmarks/structured_accuracy.py`: {first['dataset']}, {first['precision']}, {first['threads']} thread(s) a"
        f" run; {setting}. Dense networks are trained with the preset laptop, changed by {first['dense_preset']}; from them"
        f" every method, and the dense network, goes on for {first['epochs']} epochs of {first['images']:,} images, with its"
        " own preset (`one-shot-laptop` and so on). Means over seeds with sample standard deviations, on"
        f" {first['test_images']:,} test images.\n",
    ]
    for name, some in by_network(lines).items():
        seeds = sorted({line["seed"] for line in some})
        text += [f"## {name}, seeds {', '.join(map(str, seeds))}\n", tables(some, times.get(name, {})) + "\n"]
    if where := times.get("where"):
        text.append(
            f"Times: {where}, one thread, one image, float32, of untrained networks with zeros of the same kind.\n"
        )
    return "\n".join(text)


def summary(record: Mapping[str, Any]) -> str:
    """Of every network, accuracy by structure and method."""
    seeds = {line["seed"] for line in record["lines"]}
    parts = [f"{name}:\n\n{accuracies(some)}" for name, some in by_network(record["lines"]).items()]
    return "\n\n".join([*parts, f"Accuracy, %, of {len(seeds)} seed{'s' if len(seeds) > 1 else ''}."])


def accuracies(lines: Sequence[Mapping[str, Any]]) -> str:
    """A row for every structure."""
    by = grouped(lines)
    methods = [name for name in METHODS if any(name in found for found in by.values())]
    scores = {
        name: {m: [100 * line["accuracy"] for line in some] for m, some in found.items()} for name, found in by.items()
    }
    rows = [[name, *(spread(own[m], ".1f") if m in own else "–" for m in methods)] for name, own in scores.items()]
    return table(["zeros", *methods], rows)


def timed(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Milliseconds of compiled networks with such zeros, by network and structure; those of a network take turns."""
    found: dict[str, Any] = {"where": f"{cpu_name()}, {environment()['apache-tvm']}"}
    asked = {(line["model"], line["width"], line["dataset"]): [] for line in lines}
    for line in lines:
        cell = Cell(**{field.name: line[field.name] for field in dataclasses.fields(Cell)})
        asked[cell.model, cell.width, cell.dataset].append(dataclasses.replace(cell, method="", seed=0))
    for (model, width, dataset), some in asked.items():
        loaded = load_model(model, (), 0, ("batch",), dataset=dataset, width=width)
        one = tuple(value[:1] if isinstance(value, torch.Tensor) else value for value in loaded.example_inputs)
        made = {}
        for cell in dict.fromkeys(some):
            share = {} if cell.sparsity is None else {"sparsity": cell.sparsity}
            how = {} if cell.structure in (None, CHANNELS) else {"structure": cell.structure}
            pruned = loaded.module if cell.structure is None else prune(loaded.module, one, **share, **how).module
            made[cell.spelled] = (pruned, one)
        rows = measure(made, threads=1, engines=("reconvene",))
        found[f"{model}, width {width:g}"] = {row.variant: row.median_ms for row in rows}
    return found


def _lines(cell: Cell, place: Place) -> Iterator[resumable.Line]:
    yield measured(cell, place)


def swept(options: argparse.Namespace, lines: Sequence[resumable.Line]) -> list[resumable.Line]:
    """The lines there are and those that were missing."""
    place = Place(resumable.images_of(options), options.work, resumable.hardware_of(options))
    jobs = (
        resumable.Job(
            f"{cell.spelled}, {cell.method}, seed {cell.seed}",
            frozenset({cell.key}),
            partial(_lines, cell, place),
            lambda line: f"{line['accuracy']:.2%}",
        )
        for cell in cells(options)
    )
    return resumable.swept(jobs, lines, place.machine, options.results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES), metavar="STRUCTURE[:SHARE]")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--latency", action="store_true", help="only measure times of what is there")
    resumable.add_options(parser, "structured_accuracy", seeds=[0, 1, 2])
    options = parser.parse_args()
    return resumable.main(options, lambda lines: swept(options, lines), page, timed)


if __name__ == "__main__":
    sys.exit(main())
