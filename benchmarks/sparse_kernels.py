"""What zeros inside a layer bring: kernels that skip them, over our own dense ones for the same layer, by structure and share.

    python benchmarks/sparse_kernels.py [--json docs/results/sparse_kernels.json --markdown docs/results/sparse_kernels.md]
        [--kinds 3x3 1x1 matrix] [--structures row-block:4 ...] [--shares 0.9 ...] [--layers 1]

The four 3x3 layers of resnet18, pointwise layers of mobilenet_v2, and matrices of recurrent cells. Random weights, pruned by
magnitude. The direct kernel, both of Winograd's and those that skip zeros are timed one after the other in one run, the dense
ones before and after the others, on one thread, one image, float32, weights not in cache, each with the tables of the layer
itself. Direct and best are the fastest of our dense kernels of that kind and of any kind. Layers that are in the JSON file
already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from latency import cpu_name

from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.graph.nodes import Convolution, Weights
from reconvene.backends.kernels.base import LayerSpec, Task, Trial
from reconvene.backends.kernels.epilogue import Epilogue
from reconvene.backends.kernels.families import FAMILIES
from reconvene.backends.kernels.planes import plane_view
from reconvene.backends.kernels.row_zeros import zeros_in_rows
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.lowering.layers import convolution_spec, planes_task
from reconvene.backends.lowering.layout import Image, dense_view
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import write_text
from reconvene.passes.structures import LayerShape, find_structure

RESULTS = """## Zeros inside of layers, in time

Kernels that skip zeros over our own dense ones, by structure and share, layer by layer:
[kernel by kernel](results/sparse_kernels.md).
"""
"""The section of the results."""


@dataclass(frozen=True)
class Layer:
    """A convolution over a square image, or a matrix times a vector, where the image is one pixel."""

    outputs: int
    inputs: int
    window: int
    side: int

    @property
    def name(self) -> str:
        if self.side == 1:
            return f"{self.outputs} x {self.inputs}"
        return f"{self.inputs} to {self.outputs} @ {self.side}x{self.side}"

    @property
    def kind(self) -> str:
        return "matrix" if self.side == 1 else f"{self.window}x{self.window}"


@dataclass(frozen=True)
class Asked:
    """Zeros of a layer: a structure as it is spelled, and the share of them."""

    structure: str
    share: float


LAYERS = (
    Layer(64, 64, 3, 56), Layer(128, 128, 3, 28), Layer(256, 256, 3, 14), Layer(512, 512, 3, 7),
    Layer(24, 144, 1, 56), Layer(192, 32, 1, 28), Layer(64, 384, 1, 14), Layer(576, 96, 1, 14), Layer(160, 960, 1, 7),
    Layer(1280, 320, 1, 7),
    Layer(3072, 1024, 1, 1), Layer(1536, 512, 1, 1),
)  # fmt: skip
STRUCTURES = {
    "3x3": (
        "unstructured", "row-block:2", "row-block:4", "row-block:8", "block-punched:8x4", "bcr:16x8", "pattern",
        "pattern:8:4", "2:4", "2:4:4", "1:4:4",
    ),
    "1x1": ("unstructured", "row-block:4", "row-block:8", "bcr:16x16", "2:4", "2:4:4", "1:4:4"),
    "matrix": ("unstructured", "row-block:8", "row-block:16", "row-block:32", "row-block:64", "bcr:64x64"),
}  # fmt: skip
SHARES = (0.5, 0.7, 0.8, 0.9)
DENSE = frozenset({"direct", "winograd 2x2", "winograd 4x4"})
PATTERN_SHARES = (5 / 9, 1 - 1 / 8.1)
"""Of a pattern in every kernel, and with so few kernels that weights are 8.1 times fewer (PatDNN)."""


def zeros_of(structure: str, shares: Sequence[float]) -> list[Asked]:
    """The shares that a structure is measured at: its own, if it says it."""
    own = find_structure(structure).fixed_sparsity
    if structure.startswith("pattern"):
        return [Asked(structure, share) for share in PATTERN_SHARES]
    return [Asked(structure, share) for share in ((own,) if own is not None else shares)]


def masked(layer: Layer, asked: Asked) -> Convolution:
    """Random weights with such zeros. Raises InputError where they do not fit."""
    random = np.random.default_rng(0)
    kernel = random.standard_normal((layer.outputs, layer.inputs, layer.window, layer.window)) / layer.inputs**0.5
    weight = torch.from_numpy(kernel if layer.side > 1 else kernel[:, :, 0, 0])
    structure = find_structure(asked.structure)
    if misfit := structure.fits(LayerShape.of(weight)):
        raise InputError(misfit)
    kept = structure.project(weight, asked.share).numpy().reshape(kernel.shape)
    pad = layer.window // 2
    return Convolution(Weights(kept, random.standard_normal(layer.outputs)), (1, 1), (pad, pad, pad, pad))


def tasks_of(layer: Layer, convolution: Convolution, machine: Machine) -> list[Task]:
    """The layer alone in a network, in blocks of channels and, where it has pixels, in planes."""
    lanes, pad = machine.lanes(), layer.window // 2
    blocks, rows = -(-layer.inputs // lanes), -(-layer.outputs // lanes)
    source = dense_view(1, blocks, layer.side, layer.side, lanes, pad)
    result = dense_view(1, rows, layer.side, layer.side, lanes, pad)
    image = Image(None, source, np.arange(layer.inputs))  # type: ignore[arg-type]
    direct = convolution_spec(convolution, image, result, Epilogue(), machine)
    found = [Task(direct, zeros_in_rows(convolution, lanes))]
    if layer.side > 1:
        pitch = layer.side + pad
        planes = [plane_view(1, count, layer.side, layer.side, pad, pitch) for count in (layer.inputs, layer.outputs)]
        found.append(planes_task(convolution, planes[0], planes[1], Epilogue()))
    return found


def trial(spec: LayerSpec, convolution: Convolution, name: str, inputs: int) -> Trial:
    """The kernel with the layer's own weights and tables."""
    packed = spec.pack(convolution, np.arange(inputs))
    return Trial(spec.function(name), dict(enumerate(packed, start=1)))


def trials_of(layer: Layer, convolution: Convolution, machine: Machine, dense: bool) -> dict[str, list[Trial]]:
    """The candidates of every family."""
    found = {
        family.name: [
            trial(spec, convolution, "kernel", layer.inputs)
            for task in tasks_of(layer, convolution, machine)
            for spec in family.candidates(task, machine)
        ]
        for family in FAMILIES
        if (family.name in DENSE) == dense
    }
    return {name: trials for name, trials in found.items() if trials}


def measured(layer: Layer, structures: Sequence[Asked], machine: Machine, times: HereTimes) -> list[dict[str, Any]]:
    """A row for all zeros that fit: seconds of the fastest kernel of every family."""
    rows, groups = list[dict[str, Any]](), list[tuple[int | None, str, list[Trial]]]()
    for asked in structures:
        try:
            convolution = masked(layer, asked)
        except InputError as misfit:
            print(f"{layer.name}, {asked.structure}: {misfit}", file=sys.stderr)
            continue
        groups += [(len(rows), *one) for one in trials_of(layer, convolution, machine, False).items()]
        kernel = convolution.weights.kernel
        share = 1 - float(np.count_nonzero(kernel)) / kernel.size
        rows.append({
            "layer": layer.name, "kind": layer.kind, "structure": asked.structure, "share": share,
            "asked": round(asked.share, 3), "macs": layer.side**2 * kernel.size, "seconds": {},
        })  # fmt: skip
    dense = [(None, *one) for one in trials_of(layer, convolution, machine, True).items()]
    groups = [*dense, *groups, *dense]
    call = times.compiled([trials for _, _, trials in groups])
    print(f"timing {layer.kind} {layer.name}", file=sys.stderr, flush=True)
    seconds = call()
    for (number, family, _), some in zip(groups, seconds, strict=True):
        for row in rows if number is None else [rows[number]]:
            row["seconds"][family] = min(*some, row["seconds"].get(family, math.inf))
    return rows


def dense_of(row: dict[str, Any]) -> float:
    return min(second for family, second in row["seconds"].items() if family in DENSE)


def sparse_of(row: dict[str, Any]) -> float:
    """Of the fastest kernel that skips zeros; infinite where no such kernel applies."""
    return min((second for family, second in row["seconds"].items() if family not in DENSE), default=math.inf)


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """By kind: of all its layers together, how many times faster a structure is than the dense kernels."""
    parts = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        lines = [
            "| zeros | share | ideal | over direct | over the best dense | over direct, by layer |",
            "|---|---|---|---|---|---|",
        ]
        every = [row for row in rows if row["kind"] == kind]
        asked: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
        for row in every:
            asked[row["structure"], row["asked"]].append(row)
        layers = list(dict.fromkeys(row["layer"] for row in every))
        for (structure, _), some in asked.items():
            if len(some) < len(layers):
                continue
            time = sum(map(sparse_of, some))
            ideal = sum(row["macs"] for row in some) / sum(row["macs"] * (1 - row["share"]) for row in some)
            direct = [row["seconds"]["direct"] / sparse_of(row) for row in some]
            lines.append(
                f"| {structure} | {sum(row['share'] for row in some) / len(some):.0%} | {ideal:.1f} |"
                f" {sum(row['seconds']['direct'] for row in some) / time:.2f} | {sum(map(dense_of, some)) / time:.2f} |"
                f" {', '.join(f'{ratio:.2f}' for ratio in direct)} |"
            )
        parts.append(f"## {kind}\n\nLayers: {'; '.join(layers)}.\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def summary(record: dict[str, Any]) -> str:
    """The lines of 3x3 layers, and what they were measured on."""
    where, kinds = record["environment"], [row for row in record["rows"] if row["kind"] == "3x3"]
    return f"{where['cpu']}, {where['llvm_cpu']}, one thread, batch 1, float32.\n\n{tables(kinds)}".replace(
        "## ", "### "
    )


def page(record: dict[str, Any]) -> str:
    where = record["environment"]
    return (
        f"# What zeros inside a layer bring, kernel by kernel\n\nMade by `benchmarks/sparse_kernels.py`: {where['cpu']},"
        f" {where['llvm_cpu']}, one thread, batch 1, float32, TVM {where['tvm']}. Times of the layers of a kind are added;"
        " ideal is the ratio of weights. Over 1 is faster than our own dense kernels: the direct one, and the best one, which"
        f" may be Winograd's.\n\n{tables(record['rows'])}\n"
    )


def begun(path: Path | None, environment: dict[str, Any]) -> dict[str, Any]:
    """The record that is there, or a new one. Ends the program where that is another machine's: ratios differ between them."""
    if path is None or not path.exists():
        return {"environment": environment, "rows": []}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if record["environment"] != environment:
        raise SystemExit(
            f"'{path}' was measured with {record['environment']}, this is {environment}; name another file"
        )
    return record


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(STRUCTURES), choices=list(STRUCTURES))
    parser.add_argument("--structures", nargs="+", help="all unless given")
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--layers", type=int, default=-1, help="measure so many more; all unless given")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    target = find_target("host")
    times = HereTimes(tvm.target.Target(target.llvm()), 1, rounds=10)
    host = {"cpu": cpu_name(), "llvm_cpu": target.cpu, "tvm": tvm.__version__}
    record: dict[str, Any] = begun(options.json, host)
    rows = record["rows"]
    known = {(row["kind"], row["layer"], row["structure"], row["asked"]) for row in rows}
    left = options.layers
    for layer in LAYERS:
        structures = STRUCTURES[layer.kind] if options.structures is None else options.structures
        every = [one for name in structures for one in zeros_of(name, options.shares)]
        new = [one for one in every if (layer.kind, layer.name, one.structure, round(one.share, 3)) not in known]
        if layer.kind not in options.kinds or not new or left == 0:
            continue
        left -= 1
        rows += measured(layer, new, target.machine, times)
        print("timed", file=sys.stderr, flush=True)
        if options.json:
            write_text(options.json, json.dumps(record, indent=1) + "\n")
    text = page(record)
    if options.markdown:
        write_text(options.markdown, text)
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
