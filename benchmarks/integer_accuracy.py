"""What 8-bit integers cost trained networks, dense and pruned by half: rounded without training, and trained with the rounding.

    python benchmarks/integer_accuracy.py                                   # goes on where it was stopped
    python benchmarks/integer_accuracy.py --models resnet8-cifar --seeds 0 1 2
    python benchmarks/integer_accuracy.py --report-only                     # the page of the runs there are

A dense network of each seed is trained (DENSE); half of its channels go (`reconvene.prune`), and what is left is trained on
(FURTHER). Both are quantised in every way of WAYS, and trained with the rounding in place (ROUNDED). Accuracies in 8 bits are
those of compiled code, all layers on integers, on all test images; it is the same on every machine. Ranges are found on
training images.

Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or --data). Results: one line of JSON a network, and a page
beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
import resumable
from accuracy_page import spread

import reconvene
from reconvene.driver.models import load_model
from reconvene.driver.reports.report import environment
from reconvene.driver.training.evaluation import accuracy, answers
from reconvene.driver.training.loop import Hardware, Trained, train
from reconvene.driver.training.presets import Preset, find_preset
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.data.datasets import Images
from reconvene.frontend.graph_module import CapturedModule

RESULTS = """## Accuracy in 8-bit integers

Trained networks, dense and pruned by half, rounded without training and trained with the rounding:
[the tables](results/integer_accuracy.md).
"""
"""The section of the results."""
DENSE = {"epochs": 15, "milestones": (8.0, 12.0), "train_images": 20000, "test_images": 10000}
"""How the preset ``laptop`` is changed for the dense networks."""
FURTHER = {
    "epochs": 6,
    "milestones": (3.0, 5.0),
    "rate": 0.02,
    "warmup": 0.0,
    "train_images": 20000,
    "test_images": 10000,
}
"""And for the pruned ones."""
ROUNDED = {"epochs": 1, "milestones": (), "rate": 0.001, "warmup": 0.0, "train_images": 20000, "test_images": 10000}
"""And for the training with the rounding in place."""
VARIANTS = {"dense": 0.0, "half of the channels": 0.5}
"""The share of channels that goes."""
WAYS: dict[str, dict[str, Any]] = {
    "min-max": {"observer": "min-max"},
    "histogram": {},
    "histogram, biases corrected": {"correct_bias": True},
}
TRAINED = "trained with the rounding"
CALIBRATION = 256
"""Training images."""
BATCH = 256
"""Images a call of the compiled code."""


@dataclass(frozen=True)
class Cell:
    """One float network, quantised in every way."""

    model: str
    width: float
    dataset: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, before what it is trained for."""
        return f"{self.model}-{self.width:g}-{VARIANTS[self.variant]:g}-{self.seed}"

    @property
    def key(self) -> str:
        told = {
            **asdict(self), "dense": DENSE, "further": FURTHER, "rounded": ROUNDED, "ways": WAYS, "calibration": CALIBRATION
        }  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Place:
    """What all trainings have in common."""

    images: tuple[Images, Images]
    work: Path
    machine: Hardware

    def trained(self, name: str, module: CapturedModule, preset: Preset, seed: int) -> Trained:
        return train(module, *self.images, preset, self.work / name, machine=self.machine, seed=seed)


def network_of(cell: Cell, place: Place) -> tuple[fx.GraphModule, float]:
    """The float network of a cell, and its accuracy."""
    loaded = load_model(cell.model, (), cell.seed, ("batch",), dataset=cell.dataset, width=cell.width)
    assert isinstance(loaded.module, CapturedModule)
    laptop = find_preset("laptop")
    dense = place.trained(f"{cell.model}-{cell.width:g}-0-{cell.seed}", loaded.module, laptop.changed(DENSE), cell.seed)
    share = VARIANTS[cell.variant]
    if not share:
        return dense.module, dense.score
    small = reconvene.prune(dense.module, loaded.example_inputs, sparsity=share, seed=cell.seed).module
    assert isinstance(small, CapturedModule)
    done = place.trained(cell.name, small, laptop.changed(FURTHER), cell.seed)
    return done.module, done.score


def measured(cell: Cell, place: Place) -> dict[str, Any]:
    """The line of a cell."""
    training, test = place.images
    module, score = network_of(cell, place)
    calibration = training.batch(count=CALIBRATION)
    eight_bits, agreement, results = {}, {}, {}
    floats = answers(module, test)
    for way, options in WAYS.items():
        results[way] = reconvene.quantize(module, calibration, **options, seed=cell.seed)
    rounded = place.trained(
        f"{cell.name}-rounded", results["histogram"].trainable(), find_preset("laptop").changed(ROUNDED), cell.seed
    )
    results[TRAINED] = reconvene.quantize(
        rounded.module, None, example_inputs=(calibration[:1],), evaluation=calibration
    )
    for way, result in results.items():
        given = answers(Compiled(result.module, calibration.shape[1:]), test)
        eight_bits[way] = accuracy(given, test)
        agreement[way] = float((given == floats).double().mean())
    report = results["histogram"].report
    return {
        "key": cell.key,
        **asdict(cell),
        "float": score,
        "int8": eight_bits,
        "agreement": agreement,
        "test_images": len(test),
        "calibration": CALIBRATION,
        "bytes": {"float": report.bytes_before, "int8": report.bytes_after},
        "presets": {"dense": {**DENSE}, "further": {**FURTHER}, "rounded": {**ROUNDED}},
        "precision": place.machine.precision,
        "device": place.machine.device,
        "threads": place.machine.threads,
        "environment": environment(),
    }


class Compiled(nn.Module):
    """A quantised network as compiled code, everything on integers, for any number of images."""

    def __init__(self, module: fx.GraphModule, shape: torch.Size) -> None:
        super().__init__()
        self.built = reconvene.compile(module, (torch.zeros(BATCH, *shape),), dtype="int8")
        if self.built.floats:
            raise ReconveneError(f"in float32: {', '.join(map(str, self.built.floats))}")

    def forward(self, images: Tensor) -> Tensor:
        room = torch.zeros(BATCH - len(images), *images.shape[1:])
        found: Tensor = self.built.run(torch.cat([images, room]))
        return found[: len(images)]


def _lines(cell: Cell, place: Place) -> Iterator[resumable.Line]:
    yield measured(cell, place)


def swept(options: argparse.Namespace, lines: Sequence[resumable.Line]) -> list[resumable.Line]:
    """The lines there are and those that were missing."""
    place = Place(resumable.images_of(options), options.work, resumable.hardware_of(options))
    jobs = (
        resumable.Job(
            cell.name,
            frozenset({cell.key}),
            partial(_lines, cell, place),
            lambda line: f"{line['float']:.2%}, {line['int8']}",
        )
        for cell in cells(options)
    )
    return resumable.swept(jobs, lines, place.machine, options.results)


def cells(options: argparse.Namespace) -> list[Cell]:
    """Those of a seed together, since the pruned network begins with the dense one."""
    return [
        Cell(model, float(width or 1), options.dataset, variant, seed)
        for seed in options.seeds
        for model, _, width in (named.partition(":") for named in options.models)
        for variant in VARIANTS
    ]


def page(lines: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy of all networks, and what each way loses."""
    first = lines[0]
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    presets = first["presets"]
    return "\n".join(
        [
            "---\norphan: true\n---\n\n# Accuracy in 8-bit integers\n",
            f"Made by `benchmarks/integer_accuracy.py`: {first['dataset']}, trained in {first['precision']}; {setting}. Dense"
            f" networks are trained with the preset laptop, changed by {presets['dense']}; half of the channels are removed and"
            f" what is left is trained with {presets['further']}. Training with the rounding is {presets['rounded']}."
            f" Ranges are found on {first['calibration']} training images. In 8 bits compiled code answers, all layers on"
            f" integers; its bits are the same on all machines. All {first['test_images']:,} test images; means over seeds with"
            " sample standard deviations, losses by pairs of equal seeds. Agreement is the share of test images with the"
            " float network's answer.\n",
            table(lines) + "\n",
        ]
    )


def summary(record: Mapping[str, Any]) -> str:
    """The table of the results page."""
    return table(record["lines"])


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    ways = [*WAYS, TRAINED]
    head = [
        "network",
        "seeds",
        "float %",
        *(f"{way}: %, points lost, agreement %" for way in ways),
        "weights kB, float / int8",
    ]
    rows: list[list[str]] = [head, ["---"] * len(head)]
    for some in grouped(lines):
        first = some[0]
        width = "" if first["width"] == 1 else f", width {first['width']:g}"
        cells = [f"{first['model']}{width}, {first['variant']}", str(len(some)), spread(_percent(some, "float"), ".1f")]
        for way in ways:
            lost = [100 * (line["float"] - line["int8"][way]) for line in some]
            agreed = sum(line["agreement"][way] for line in some) / len(some)
            accuracies = [100 * line["int8"][way] for line in some]
            cells.append(f"{spread(accuracies, '.1f')}, {spread(lost, '.2f')}, {100 * agreed:.1f}")
        cells.append(f"{first['bytes']['float'] / 1e3:,.0f} / {first['bytes']['int8'] / 1e3:,.0f}")
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(lines: Sequence[Mapping[str, Any]], what: str) -> list[float]:
    return [100 * line[what] for line in lines]


def grouped(lines: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Those of a network and variant together, one line a seed."""
    found: dict[tuple[str, float, str], list[Mapping[str, Any]]] = {}
    for line in lines:
        found.setdefault((line["model"], line["width"], line["variant"]), []).append(line)
    return list(found.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["resnet8-cifar", "resnet20", "vgg16:0.5"], metavar="MODEL[:WIDTH]"
    )
    resumable.add_options(parser, "integer_accuracy", seeds=[0])
    options = parser.parse_args()
    return resumable.main(options, lambda lines: swept(options, lines), lambda lines, _: page(lines))


if __name__ == "__main__":
    sys.exit(main())
