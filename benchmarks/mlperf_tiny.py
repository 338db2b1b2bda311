"""What the networks of MLPerf Tiny cost on microcontrollers that are not here, beside what published boards take.

    python benchmarks/mlperf_tiny.py [--networks resnet8-cifar ...] [--targets cortex-m4 cortex-m7] [--dtypes float32 int8]
        [--json docs/results/mlperf_tiny.json]

Each is compiled to a program without an operating system, runs under QEMU, and is counted and modelled as docs/estimate.md
says: the same code gives the same figures on any machine. The outputs of int8 are compared bit by bit with the arithmetic that
defines them (`reconvene.passes.integers`), those of float32 with PyTorch. A record is kept after every row, with a page beside
it, and rows that it has already are not made again (--fresh makes all).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reconvene
from reconvene import prune
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.estimate.bundle import estimate_bundle
from reconvene.backends.importing.importer import import_module
from reconvene.frontend.base.files import write_text
from reconvene.frontend.networks.papers import find_network

RESULTS = """## Microcontrollers

The networks of MLPerf Tiny on the Cortex-M4 and M7, dense and with half of the channels, in millions of modelled cycles beside
published boards: [memory, instructions and where the cycles go](results/mlperf_tiny.md).
"""
"""The section of the results."""

TASKS = {
    "resnet8-cifar": "image classification",
    "ds-cnn": "keyword spotting",
    "mobilenet-v1-vww": "visual wake words",
    "autoencoder-ad": "anomaly detection",
}
"""What each network is of the benchmark."""


@dataclass(frozen=True)
class Published:
    """Somebody's entry: a board, its core and clock, the software, and inferences in a second of `TASKS` in turn."""

    board: str
    target: str
    megahertz: int
    software: str
    rates: tuple[float, float, float, float]

    def megacycles(self, network: str) -> float:
        """Of one inference."""
        return self.megahertz / self.rates[list(TASKS).index(network)]


PUBLISHED = (
    Published("NUCLEO-L4R5ZI", "cortex-m4", 120, "ST, X-CUBE-AI 8.1", (4.673, 15.905, 8.425, 145.8)),
    Published("NUCLEO-L4R5ZI", "cortex-m4", 120, "Bosch, HALE 1.0", (5.586, 15.954, 5.533, 176.7)),
    Published("NUCLEO-L4R5ZI", "cortex-m4", 120, "Krai, microTVM with CMSIS-NN", (2.567, 10.019, 3.324, 116.2)),
    Published("NUCLEO-L4R5ZI", "cortex-m4", 120, "Krai, microTVM's own kernels", (2.570, 6.943, 2.951, 85.3)),
    Published("NUCLEO-H7A3ZI", "cortex-m7", 280, "ST, X-CUBE-AI 8.1", (19.250, 65.133, 33.751, 550.0)),
    Published("NUCLEO-H7A3ZI", "cortex-m7", 280, "Bosch, HALE 1.0", (21.353, 67.956, 22.906, 737.3)),
    Published("DISCO-F746NG", "cortex-m7", 216, "Bosch, HALE 1.0", (16.242, 54.293, 17.490, 587.3)),
)
"""MLPerf Tiny v1.1, closed division, int8: github.com/mlcommons/tiny_results_v1.1, ``closed/*/results/*/performance``."""


def main() -> int:
    options = _options()
    record: dict[str, Any] = {"setting": setting(options), "rows": []}
    if options.json and options.json.exists() and not options.fresh:
        record["rows"] = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    done = {key(row) for row in record["rows"]}
    for network in options.networks:
        for variant in ("dense", f"half of the channels, {options.method}"):
            for dtype in options.dtypes:
                wanted = [one for one in options.targets if (network, variant, dtype, one) not in done]
                if not wanted:
                    continue
                module, inputs, macs = model(network, variant, dtype, options)
                for target in wanted:
                    row = {"network": network, "variant": variant, "dtype": dtype, "target": target, "macs": macs}
                    record["rows"].append(row | measure(module, inputs, dtype, target))
                    print(table(record["rows"][-1:]).splitlines()[-1], flush=True)
                    if options.json:
                        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.json:
        write_text(options.json.with_suffix(".md"), page(record))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--targets", nargs="+", default=["cortex-m4", "cortex-m7"])
    parser.add_argument("--dtypes", nargs="+", default=["int8", "float32"], choices=["int8", "float32"])
    parser.add_argument(
        "--method", default="random", help="that chooses channels; any choice of as many costs the same"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget the rows that the record has")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def key(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """What tells rows apart."""
    return row["network"], row["variant"], row["dtype"], row["target"]


def model(
    network: str, variant: str, dtype: str, options: argparse.Namespace
) -> tuple[nn.Module, tuple[Tensor, ...], int]:
    """The network, untrained, an input, and its multiply-accumulates."""
    torch.manual_seed(options.seed)
    found = find_network(network)
    module, inputs = found.build().eval(), (torch.randn(*found.shape),)
    pruned = prune(module, inputs, method=options.method, sparsity=0.5, seed=options.seed)
    chosen, macs = (module, pruned.report.before.macs)
    if variant != "dense":
        chosen, macs = pruned.module, pruned.report.after.macs
    if dtype == "int8":
        chosen = reconvene.quantize(chosen, inputs, example_inputs=inputs, observer="min-max").module
    return chosen, inputs, macs


def measure(module: nn.Module, inputs: tuple[Tensor, ...], dtype: Any, target: str) -> dict[str, Any]:
    """Bytes, counts and cycles, and how far the program's outputs are from what defines them."""
    with tempfile.TemporaryDirectory() as temporary:
        built = compile(module, inputs, target, dtype=dtype, check=False)
        folder = built.export(Path(temporary) / "bundle", runtime="none")
        figures = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        bundle = open_bundle(folder)
        (given,) = run_bundle(bundle, inputs, bundle_emulator(bundle))
        found = estimate_bundle(folder)
    total = found.total
    return {
        "difference": _difference(module, inputs, given, dtype),
        "flash": figures["flash"],
        "weights": figures["weights"],
        "ram": figures["ram"],
        "instructions": total.instructions,
        "cycles": round(total.cycles),
        "throughput_cycles": round(total.throughput_cycles),
        "multiply_add_cycles": round(total.floor_cycles),
        "kernels": {kernel.name: round(kernel.cycles) for kernel in found.kernels},
        "runtime_cycles": round(found.other.cycles),
        "core_model": found.core.model,
        "tools": dict(found.tools),
    }


def _difference(module: nn.Module, inputs: tuple[Tensor, ...], given: Tensor, dtype: str) -> float:
    """The largest between outputs and what they should be, over the largest of these; 0 only where all bits are equal."""
    reference = module
    if dtype == "int8":
        integers = import_module(module, inputs).integers
        assert integers is not None
        reference = integers.module
    with torch.no_grad():
        wanted = reference(*inputs)
    wanted = wanted[0] if isinstance(wanted, tuple) else wanted
    return float((given - wanted).abs().max() / wanted.abs().max())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; a row for each program."""
    lines = [
        "| network | type | core | MACs | flash kB | of it weights | RAM kB | instructions | Mcycles | busiest unit alone |"
        " MACs / cycle | outputs |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(TASKS)
    for row in sorted(rows, key=lambda row: (order.index(row["network"]), row["target"], row["dtype"], row["variant"])):
        bits = "bits equal" if row["difference"] == 0 else f"within {row['difference']:.0e}"
        cells = [
            f"{row['network']}, {row['variant']}", row["dtype"], row["target"], f"{row['macs'] / 1e6:.2f} M",
            *(f"{row[name] / 1e3:.1f}" for name in ("flash", "weights", "ram")),
            *(f"{row[name] / 1e6:.2f}{unit}" for name, unit in (("instructions", " M"), ("cycles", ""))),
            f"{row['throughput_cycles'] / 1e6:.2f}", f"{row['macs'] / row['cycles']:.2f}", bits,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def beside(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: Mcycles of one inference in int8, ours and those of published boards."""
    lines = [f"| who | core | {' | '.join(TASKS)} |", f"|---|---|{'---|' * len(TASKS)}"]
    ours = {key(row): row["cycles"] / 1e6 for row in rows if row["dtype"] == "int8"}
    for target in dict.fromkeys(row["target"] for row in rows):
        for variant in dict.fromkeys(row["variant"] for row in rows):
            found = [ours.get((network, variant, "int8", target)) for network in TASKS]
            cells = ["" if value is None else f"{value:.2f}" for value in found]
            lines.append(f"| ours, {variant} (modelled) | {target} | {' | '.join(cells)} |")
        for entry in (entry for entry in PUBLISHED if entry.target == target):
            cells = [f"{entry.megacycles(network):.2f}" for network in TASKS]
            who = f"{entry.software}; {entry.board}, {entry.megahertz} MHz"
            lines.append(f"| {who} | {target} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(record: dict[str, Any]) -> str:
    """What the page of all results shows."""
    return beside(record["rows"])


def shares(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: the dearest kernels of each dense network in int8."""
    lines = ["| network | core | kernels, by cycles | between kernels |", "|---|---|---|---|"]
    for row in rows:
        if (row["variant"], row["dtype"]) == ("dense", "int8"):
            dearest = sorted(row["kernels"].items(), key=lambda item: -item[1])[:6]
            cells = ", ".join(f"{name} {cycles / row['cycles']:.0%}" for name, cycles in dearest)
            between = f"{row['runtime_cycles'] / row['cycles']:.1%}"
            lines.append(f"| {row['network']} | {row['target']} | {cells} | {between} |")
    return "\n".join(lines)


PAGE = """# MLPerf Tiny on microcontrollers

Made by `benchmarks/mlperf_tiny.py`. Cycles are modelled, by LLVM's model of the core, for memories that never wait: [the method
and what it leaves out](../estimate.md#microcontrollers). The boards of others were measured, flash and all, so that ours are
lower bounds beside them. Networks are untrained; of those with half of the channels these were chosen at random, which costs
what any choice of as many does. They are no entries of MLPerf: its closed division allows no pruning.

Flash is code and weights of the model, RAM the values between its kernels and what they work in. *MACs* are
multiply-accumulates. Outputs are those of the program under QEMU: in int8 compared with the arithmetic that defines them, in
float32 with PyTorch, the largest difference over the largest value.
"""

QUOTED = """Published: MLPerf Tiny v1.1, closed division, int8, theirs and as they measured it
([results](https://github.com/mlcommons/tiny_results_v1.1)); Mcycles are the board's clock over its inferences in a second."""


def page(record: dict[str, Any]) -> str:
    """The record as a page."""
    said = "; ".join(f"{name} {value}" for name, value in record["setting"].items())
    tools = sorted({tool for row in record["rows"] for tool in row["tools"].values()})
    parts = [
        PAGE + "\n" + f"{said}; {'; '.join(tools)}.",
        "## Beside published boards\n\nMcycles of one inference in int8.",
        beside(record["rows"]),
        QUOTED,
        "## Memory, instructions, cycles",
        table(record["rows"]),
        "## Where the cycles go",
        shares(record["rows"]),
    ]
    return "\n\n".join(parts) + "\n"


def setting(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    versions = {name: metadata.version(name) for name in ("reconvene", "torch", "apache-tvm")}
    return {"seed": options.seed, "batch": 1, "versions": ", ".join(f"{name} {v}" for name, v in versions.items())}


if __name__ == "__main__":
    raise SystemExit(main())
