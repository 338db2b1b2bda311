"""What dense and channel-pruned networks cost on ARM boards that are not here: instructions, cycles, memory, time.

    python benchmarks/estimate.py [--networks vgg16_cifar ...] [--targets rpi4 ...] [--dtypes float32 float16 int8]
        [--json docs/results/estimate.json]

The method, and what it leaves out, is in docs/estimate.md. It is deterministic: the same code gives the same figures on any
machine, loaded or not, so a change of a schedule shows in the last digit. A record is kept after every row, with a page
beside it, and rows that it has already are not made again (--fresh makes all).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import build, image_size

from reconvene import prune, quantize
from reconvene.backends.compile import compile
from reconvene.backends.estimate.bundle import estimate_bundle
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.files import write_text

PEERS = (
    ("vgg16_cifar", "XNNPACK (LiteRT 2.3.0)", 107.5, 80.6, 61),
    ("resnet18", "XNNPACK (LiteRT 2.3.0)", 666.8, 491.0, 106),
    ("mobilenet_v2", "XNNPACK (LiteRT 2.3.0)", 123.4, 93.6, 59),
    ("vgg16_cifar", "ONNX Runtime 1.31.1", 119.7, 94.4, 65),
    ("resnet18", "ONNX Runtime 1.31.1", 665.4, 529.0, 108),
    ("mobilenet_v2", "ONNX Runtime 1.31.1", 178.9, 131.0, 65),
    ("vgg16_cifar", "ncnn 1.0.20261020, Winograd", 46.1, 36.2, 246),
    ("resnet18", "ncnn 1.0.20261020, Winograd", 239.7, 206.0, 369),
    ("mobilenet_v2", "ncnn 1.0.20261020", 101.3, 91.3, 126),
)
"""Dense networks in other engines, by the same method on `PEERS_TARGET`, in `PEERS_DTYPE`: instructions and cycles in
millions, memory in MB.
"""

PEERS_TARGET, PEERS_DTYPE = "rpi4", "float32"

PEERS_NOTE = """Other engines, dense, on rpi4: counted and modelled earlier in the same way (QEMU 7.2, llvm-mca 14 with the
same splitting of addresses, caches of 32 KiB and 1 MiB), not by this program. Float32, one thread, the whole call. Our pruned
network is set against their cycles for the dense one times the share of multiply-accumulates that pruning leaves.
[LiteRT in int8](arm_peers.md) is counted by a program."""


def main() -> int:
    options = _options()
    record = {"environment": environment(options), "rows": []}
    if options.json and options.json.exists() and not options.fresh:
        record["rows"] = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    done = {(row["target"], row["network"], row["variant"], dtype_of(row)) for row in record["rows"]}
    for network in options.networks:
        for variant in ("dense", f"pruned {options.sparsity:.0%}"):
            wanted = [one for one in ways(options) if (one[0], network, variant, one[1]) not in done]
            if not wanted:
                continue
            module, inputs, macs = model(network, variant, options)
            if "int8" in {dtype for _, dtype in wanted}:
                # Ranges are of one input of noise, which changes no cycle.
                quantised = quantize(module, inputs, example_inputs=inputs, observer="min-max").module
            for target, dtype in wanted:
                row = {"network": network, "variant": variant, "dtype": dtype, "macs": macs}
                computed = quantised if dtype == "int8" else module
                record["rows"].append(row | measure(computed, inputs, target, dtype))
                print(table(record["rows"][-1:]).splitlines()[-1], flush=True)
                if options.json:
                    write_text(options.json, json.dumps(record, indent=2) + "\n")
    if options.json:
        write_text(options.json.with_suffix(".md"), page(record))
    print(table(record["rows"]))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16_cifar", "mobilenet_v2", "resnet18"])
    parser.add_argument("--targets", nargs="+", default=["rpi4", "rpi3", "rpi5"])
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32"], help="that layers are computed in, where a target does"
    )
    parser.add_argument("--sparsity", type=float, default=0.5, help="share of channels removed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget the rows that the record has")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def ways(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Targets and types that they compute in."""
    every = [(target, dtype) for target in options.targets for dtype in options.dtypes]
    return [(target, dtype) for target, dtype in every if dtype != "float16" or find_target(target).has_half_floats]


def model(network: str, variant: str, options: argparse.Namespace) -> tuple[nn.Module, tuple[Any, ...], int]:
    """The network, an input, and its multiply-accumulates; pruned by random scores, which costs what any choice does."""
    size = image_size(network, False)
    inputs = (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(options.seed)),)
    dense = build(network, options.seed)
    result = prune(dense, inputs, method="random", sparsity=options.sparsity, seed=options.seed)
    if variant == "dense":
        return build(network, options.seed), inputs, result.report.before.macs
    return result.module, inputs, result.report.after.macs


def measure(module: nn.Module, inputs: tuple[Any, ...], target: str, dtype: Any = "float32") -> dict[str, Any]:
    """What was found: compiled, linked, run under QEMU and modelled.

    Code of float32 and of integers is compared with PyTorch. Values of untrained networks are below what float16 holds, which
    changes no cycle.
    """
    half = dtype == "float16"
    with tempfile.TemporaryDirectory() as folder:
        built = compile(module, inputs, target, dtype="float16" if half else "float32", check=not half)
        found = estimate_bundle(built.export(Path(folder) / "bundle", runtime="static"))
    total = found.total
    return {
        "target": target,
        "core_model": found.core.model,
        "instructions": total.instructions,
        "cycles": round(total.cycles),
        "throughput_cycles": round(total.throughput_cycles),
        "multiply_add_cycles": round(total.floor_cycles),
        "runtime_cycles": round(found.other.cycles),
        "l1_misses": total.l1_misses,
        "last_misses": total.last_misses,
        "memory_mb": total.memory_bytes / 1e6,
        "milliseconds": total.milliseconds,
        "clock_mhz": found.board.clock_mhz,
        "memory_mb_s": found.board.memory_mb_s,
        "tools": dict(found.tools),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; ratios are dense over pruned, beside the ratio of multiply-accumulates."""
    lines = [
        "| network | target | instructions | Mcycles | busiest unit alone | multiply-adds alone | memory MB | ms |"
        " MACs | dense / this: MACs | instructions | cycles |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    dense = {
        (row["network"], row["target"]): row for row in rows if row["variant"] == "dense" and dtype_of(row) == "float32"
    }
    for row in sorted(rows, key=lambda row: (row["network"], row["target"], row["variant"], row.get("dtype", ""))):
        base = dense.get((row["network"], row["target"]))
        ratios = [f"{base[key] / row[key]:.2f}" if base else "" for key in ("macs", "instructions", "cycles")]
        cells = [
            f"{row['network']} {row['variant']}{'' if (kind := dtype_of(row)) == 'float32' else f' {kind}'}",
            row["target"],
            f"{row['instructions'] / 1e6:.1f} M",
            f"{row['cycles'] / 1e6:.1f}",
            f"{row['throughput_cycles'] / 1e6:.1f}",
            f"{row['multiply_add_cycles'] / 1e6:.1f}",
            f"{row['memory_mb']:.1f}",
            f"{row['milliseconds']:.1f}",
            f"{row['macs'] / 1e6:.1f} M",
            *ratios,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def peers_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of `PEERS` beside our rows of the same target and type, a column for each variant that is pruned.

    Pruned, ours are set against what another engine would need if it turned every multiply-accumulate that is gone into
    time: its cycles for the dense network, times the share of multiply-accumulates that is left.
    """
    alike = [row for row in rows if (row["target"], dtype_of(row)) == (PEERS_TARGET, PEERS_DTYPE)]
    ours = {(row["network"], row["variant"]): row for row in alike}
    variants = sorted({row["variant"] for row in alike} - {"dense"})
    titles = [
        *("network", "engine", "instructions", "Mcycles", "memory MB", "our Mcycles", "our memory MB", "ours / theirs"),
        *(f"ours, {variant} / theirs by multiply-accumulates" for variant in variants),
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, engine, instructions, cycles, memory in PEERS:
        dense = ours.get((name, "dense"))
        if dense is None:
            continue
        cells = [
            name, engine, f"{instructions:.1f} M", f"{cycles:.1f}", str(memory), f"{dense['cycles'] / 1e6:.1f}",
            f"{dense['memory_mb']:.0f}", f"{dense['cycles'] / 1e6 / cycles:.2f}",
        ]  # fmt: skip
        for variant in variants:
            pruned = ours.get((name, variant))
            by_macs = cycles * pruned["macs"] / dense["macs"] if pruned else None
            cells.append(f"{pruned['cycles'] / 1e6 / by_macs:.2f}" if pruned and by_macs else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def dtype_of(row: dict[str, Any]) -> str:
    """The type that a row's layers are computed in; rows of float32 may leave it out."""
    return str(row.get("dtype", "float32"))


PAGE = """# Estimates for boards

Made by `benchmarks/estimate.py`; [the method and its limits](../estimate.md). Channels of every prunable group were removed
at random, which costs what any choice of as many channels does. The last three columns say how many times more the dense
network takes in float32, which is the type where none is named. *Busiest unit alone* and *multiply-adds alone* are lower bounds
of the cycles, in millions. Milliseconds are lower bounds too, at the clock of the board and an assumed memory.
"""


def page(record: dict[str, Any]) -> str:
    """The record as a page."""
    setting = "; ".join(f"{key} {value}" for key, value in record["environment"].items())
    models = sorted(
        {(row["target"], row["core_model"], row["clock_mhz"], row["memory_mb_s"]) for row in record["rows"]}
    )
    boards = [f"{name}: LLVM's model of {core}, {clock} MHz, {memory} MB/s" for name, core, clock, memory in models]
    tools = sorted({tool for row in record["rows"] for tool in row["tools"].values()})
    settings = f"{setting}; {'; '.join(boards)}; {'; '.join(tools)}."
    return "\n".join(
        [
            PAGE,
            settings,
            "",
            table(record["rows"]),
            "",
            "## Other engines",
            "",
            PEERS_NOTE,
            "",
            peers_table(record["rows"]),
            "",
        ]
    )


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "threads": 1,
        "batch": 1,
        "sparsity": options.sparsity,
        "seed": options.seed,
        "cores": ", ".join(find_target(target).cpu for target in options.targets),
        "versions": {name: metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")},
    }


if __name__ == "__main__":
    raise SystemExit(main())
