"""Whole networks with zeros inside their layers, over our own best dense code and over other engines, in one run.

    python benchmarks/sparse_networks.py --json docs/results/sparse_networks.json --markdown docs/results/sparse_networks.md
        [--networks resnet18 ...] [--structures unstructured row-block:4 ...] [--shares 0.7 0.8 0.9] [--cells 1]
        [--engines onnxruntime openvino] [--deepsparse PYTHON]
    python benchmarks/sparse_networks.py --targets rpi4 rpi5 rpi3 --json docs/results/sparse_boards.json ...

Untrained weights, pruned by magnitude, the same share in every layer that takes the structure; 1x1 layers take `row-block:4`
where patterns are asked for, which are of 3x3 kernels. First convolutions, depthwise layers and classifiers stay dense.
Channels that zeros leave without a use are removed, as ever: what multiply-accumulates the channels that are left would have
without zeros, is beside the times, and a network of which no path from the input to the output is left is no row. A cell is
one network and structure: its dense form and all shares, and the engines on the dense form and on the largest share, take
turns in one run on one thread, one image, float32. Every output is compared with PyTorch's before it is timed. DeepSparse runs
in a Python of its own, which is named, on the same ONNX files, between our turns. With `--targets`, networks are compiled for
boards, run under QEMU and modelled, as `benchmarks/estimate.py` does, with kernels chosen by the formula. Cells that are
in the JSON file already are not measured again, on whatever machine they were: ratios are within a cell, and the page has a
table for each machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import version_converter
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import PACKAGES, difference, missing, prepare
from estimate import measure as modelled
from latency import TOLERANCE, cpu_name
from models import build, image_size

from reconvene import prune
from reconvene.backends.machines.targets import find_target
from reconvene.backends.measure import Timing, time_calls, timing, torch_threads
from reconvene.frontend.base.files import write_text
from reconvene.frontend.program_file import export_onnx
from reconvene.passes.structures import find_structure

RESULTS = """## Networks with zeros inside their layers

Over our own best dense code and other engines, by turns in one run: [network by network](results/sparse_networks.md).
"""
"""The section of the results."""
ON_BOARDS = """## Networks with zeros inside their layers, on boards

The same with modelled cycles: [network by network](results/sparse_boards.md).
"""
"""And of boards."""
NETWORKS = ("resnet18", "mobilenet_v2", "vgg16_cifar", "resnet50")
STRUCTURES = ("unstructured", "row-block:4", "block-punched:8x4", "pattern,row-block:4", "2:4:4", "1:4:4")
SHARES = (0.7, 0.8, 0.9)
PATTERNS_SHARE = 1 - 1 / 8.1
"""Of patterns with connectivity, as PatDNN has them."""
BETWEEN = """
import sys
from deepsparse import Engine
import numpy as np, time
engine = Engine(model=sys.argv[1], batch_size=1, num_cores=1)
given = [np.load(sys.argv[2])]
np.save(sys.argv[3], engine.run(given)[0])
for line in sys.stdin:
    begun = time.perf_counter()
    engine.run(given)
    print(time.perf_counter() - begun, flush=True)
"""
"""A process that writes what the network gives, and answers each line with the seconds of one call."""


def shares_of(structure: str, shares: Sequence[float]) -> list[float]:
    """The shares that a structure is measured at: its own, if it has one."""
    if "pattern" in structure:
        return [PATTERNS_SHARE]
    own = find_structure(structure).fixed_sparsity
    return list(shares) if own is None else [own]


@dataclass(frozen=True)
class Variant:
    """A network, and its multiply-accumulates by the shapes of its weights."""

    module: nn.Module
    macs: int

    @property
    def weights(self) -> int:
        """That are not zero."""
        return sum(int(parameter.count_nonzero()) for parameter in self.module.parameters())


def variants_of(
    network: str, structure: str, shares: Sequence[float], inputs: tuple[torch.Tensor, ...]
) -> dict[str, Variant]:
    """The dense network and those with zeros, by name; without those whose output does not depend on the input any more."""
    found = dict[str, Variant]()
    for share in shares_of(structure, shares):
        result = prune(build(network), inputs, "magnitude", share, structure=structure)
        found.setdefault("dense", Variant(build(network), result.report.before.macs))
        with torch.inference_mode():
            here, there = result.module(*inputs), result.module(*(-2 * value for value in inputs))
        if torch.equal(here, there):
            print(f"{network}, {structure} {share:.0%}: no path to the output is left", file=sys.stderr)
            continue
        found[f"{share:.0%}"] = Variant(result.module, result.report.after.macs)
    return found


_OPERATORS, _FORMAT = 17, 8
"""Versions of ONNX's operators and of its format that DeepSparse reads."""


class DeepSparse:
    """A network in a process of its own."""

    def __init__(self, python: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], folder: Path) -> None:
        export_onnx(module, inputs, folder / "model.onnx")
        written = version_converter.convert_version(onnx.load(folder / "model.onnx"), _OPERATORS)
        written.ir_version = _FORMAT
        for node in written.graph.node:
            # The converter leaves it; with axes given it says nothing.
            kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
            del node.attribute[:]
            node.attribute.extend(kept)
        onnx.save(written, folder / "model.onnx")
        np.save(folder / "x.npy", inputs[0].numpy())
        files = [str(folder / name) for name in ("model.onnx", "x.npy", "y.npy")]
        self._found = folder / "y.npy"
        self._milliseconds: list[float] = []
        self._process = subprocess.Popen(
            [python, "-c", BETWEEN, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def version(python: str) -> str:
        asked = [python, "-c", "from importlib import metadata; print(metadata.version('deepsparse'))"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()

    def __call__(self) -> None:
        """One call, by the clock of its process: what is said between the two is no part of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        while answer and not answer[0].isdigit():
            answer = self._process.stdout.readline()
        if not answer:
            assert self._process.stderr is not None
            raise SystemExit(f"DeepSparse ended without an answer: {self._process.stderr.read()[-300:]}")
        self._milliseconds.append(1e3 * float(answer))

    def timing(self, repeats: int) -> Timing:
        """Of the last calls, so many."""
        return timing(self._milliseconds[-repeats:], threads=1, batch=1)

    def output(self) -> Any:
        return np.load(self._found)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measured(network: str, structure: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each variant and engine of a cell, all timed in turns."""
    size = image_size(network, False)
    inputs = (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
    variants = variants_of(network, structure, options.shares, inputs)
    calls: dict[str, Callable[[], object]] = {}
    facts: dict[str, dict[str, Any]] = {}
    with torch_threads(1), ExitStack() as kept:
        for name, variant in variants.items():
            module = variant.module
            with torch.inference_mode():
                expected = module(*inputs).clone()
            engines = ["reconvene", *(options.engines if name in ("dense", list(variants)[-1]) else ())]
            for engine in engines:
                call = prepare(engine, module, inputs, 1, "time")
                facts[f"{name}/{engine}"] = {"difference": checked(engine, difference(call(), expected))}
                calls[f"{name}/{engine}"] = call
            if options.deepsparse:
                folder = Path(kept.enter_context(tempfile.TemporaryDirectory()))
                other = DeepSparse(options.deepsparse, module, inputs, folder)
                kept.callback(other.close)
                other()
                facts[f"{name}/deepsparse"] = {
                    "difference": checked("deepsparse", difference(other.output(), expected))
                }
                calls[f"{name}/deepsparse"] = other
            facts[f"{name}/reconvene"] |= {"weights": variant.weights, "macs": variant.macs}
        print(f"timing {network}, {structure}", file=sys.stderr, flush=True)
        timings = time_calls(calls, options.repeat)
        for key, call in calls.items():
            if isinstance(call, DeepSparse):
                timings[key] = call.timing(timings[key].repeats)
    rows = []
    for key, times in timings.items():
        name, _, engine = key.partition("/")
        at = {"network": network, "structure": structure, "variant": name, "engine": engine}
        rows.append(
            {
                **at,
                **facts[key],
                "median_ms": times.median_ms,
                "minimum_ms": times.minimum_ms,
                "repeats": times.repeats,
            }
        )
    return rows


def checked(engine: str, found: float) -> float:
    if found > TOLERANCE:
        raise SystemExit(f"{engine} differs from PyTorch by {found:.1e} of the largest output; not timed")
    return found


def on_board(network: str, structure: str, target: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The same with modelled cycles of a board's core."""
    size = image_size(network, False)
    inputs = (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
    rows = []
    for name, variant in variants_of(network, structure, options.shares, inputs).items():
        at = {"structure": structure, "engine": "reconvene", "weights": variant.weights, "macs": variant.macs}
        rows.append({"network": network, "variant": name, **modelled(variant.module, inputs, target), **at})
    return rows


def table(rows: Sequence[dict[str, Any]], key: str, unit: str, scale: float) -> str:
    """A line for every network, structure and share: how many times less it takes than our dense code, and than others."""
    engines = [e for e in ("onnxruntime", "openvino", "deepsparse") if any(row["engine"] == e for row in rows)]
    boards = any("target" in row for row in rows)
    heads = [
        "network",
        "zeros",
        "share",
        "MACs by shape",
        f"ours, {unit}",
        "times our dense",
        *(["MB from memory", "ms at least", "times our dense"] if boards else []),
        *(f"{e}, {unit} (dense)" for e in engines),
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    cells = list(dict.fromkeys((row["network"], row["structure"], row.get("target", "")) for row in rows))
    for cell in cells:
        some = [row for row in rows if (row["network"], row["structure"], row.get("target", "")) == cell]
        figures = {(row["variant"], row["engine"]): scale * row[key] for row in some}
        memory = {row["variant"]: row["memory_mb"] for row in some if boards}
        least = {row["variant"]: row["milliseconds"] for row in some if boards}
        macs = {row["variant"]: row["macs"] for row in some if row["engine"] == "reconvene"}
        dense = figures["dense", "reconvene"]
        for variant in dict.fromkeys(row["variant"] for row in some):
            own = figures[variant, "reconvene"]
            others = []
            for engine in engines:
                here, there = figures.get((variant, engine)), figures.get(("dense", engine))
                others.append("" if here is None else f"{here:.2f}" + (f" ({there:.2f})" if there is not None else ""))
            where = f"{cell[0]} on {cell[2]}" if cell[2] else cell[0]
            told = [
                where,
                cell[1],
                variant,
                f"{macs[variant] / macs['dense']:.0%}",
                f"{own:.2f}",
                f"{dense / own:.2f}",
                *(_with_memory(memory[variant], least[variant], least["dense"]) if boards else []),
                *others,
            ]
            lines.append(f"| {' | '.join(told)} |")
    return "\n".join(lines)


def _with_memory(megabytes: float, least: float, dense: float) -> list[str]:
    return [f"{megabytes:.1f}", f"{least:.1f}", f"{dense / least:.2f}"]


def by_machine(rows: Sequence[dict[str, Any]]) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Rows that were measured on the same machine with the same versions, with what these are."""
    found: list[tuple[dict[str, str], list[dict[str, Any]]]] = []
    for row in rows:
        own = next((some for where, some in found if where == row["environment"]), None)
        if own is None:
            found.append((row["environment"], own := []))
        own.append(row)
    return found


def summary(record: dict[str, Any]) -> str:
    """The tables, and what they were measured on."""
    return "\n\n".join(f"{conditions(where, rows)}\n\n{shown(rows)}" for where, rows in by_machine(record["rows"]))


def conditions(where: dict[str, str], rows: Sequence[dict[str, Any]]) -> str:
    """A sentence."""
    if "target" in rows[0]:
        return (
            "Cycles in millions of a whole call, modelled (docs/estimate.md), as if all data lay in the first cache; and"
            " milliseconds, for each kernel the larger of its cycles and of reading from memory at 4 GB/s. Kernels are chosen"
            " by the formula, which has both."
            f" Versions: {where['versions']}. Models: {'; '.join(cores(rows))}."
        )
    return (
        f"{where['cpu']}, {where['llvm_cpu']}, one thread, medians of calls by turns within each network and structure."
        f" Versions: {where['versions']}."
    )


def cores(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Whose model the cycles of each board are by, and of which LLVM."""
    found = {(row["target"], row["core_model"], row["tools"]["llvm"].removeprefix("Debian ")) for row in rows}
    return [f"{target} the {core} of {llvm}" for target, core, llvm in sorted(found)]


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The table of rows of a machine."""
    return table(rows, "cycles", "Mcycles", 1e-6) if "target" in rows[0] else table(rows, "median_ms", "ms", 1.0)


def page(record: dict[str, Any]) -> str:
    return (
        "# Networks with zeros inside their layers\n\nMade by `benchmarks/sparse_networks.py`: batch 1, float32. Weights are"
        " untrained and pruned by magnitude, the same share in every layer that takes the structure; first convolutions,"
        " depthwise layers and classifiers are dense. Channels that zeros leave without a use are removed, which is part of"
        " what is gained: MACs by shape are those that the channels that are left would have without zeros.\n\n"
        f"{summary(record)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--engines", nargs="*", default=[engine for engine in PACKAGES if not missing(engine)])
    parser.add_argument("--deepsparse", metavar="PYTHON", help="a Python that has deepsparse")
    parser.add_argument("--targets", nargs="+", default=[], help="boards; nothing is timed then")
    parser.add_argument("--cells", type=int, default=-1, help="measure so many more; all unless given")
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "apache-tvm", *options.engines))
    if options.deepsparse:
        versions += f", deepsparse {DeepSparse.version(options.deepsparse)}"
    here = {} if options.targets else {"cpu": cpu_name(), "llvm_cpu": find_target("host").cpu}
    environment = {**here, "versions": versions}
    record: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {"rows": []}
    rows = record["rows"]
    done = {(row["network"], row["structure"], row.get("target", "")) for row in rows}
    left = options.cells
    for network in options.networks:
        for structure in options.structures:
            for target in options.targets or [""]:
                if (network, structure, target) in done or left == 0:
                    continue
                left -= 1
                found = (
                    on_board(network, structure, target, options) if target else measured(network, structure, options)
                )
                rows += [{**row, "environment": environment} for row in found]
                print(shown(found), flush=True)
                write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, page(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
