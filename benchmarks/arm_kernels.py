"""How near our ARM kernels come to one multiply-add of a whole vector in each cycle, by kind of layer.

    python benchmarks/arm_kernels.py [--networks ...] [--targets rpi4 ...] [--json docs/results/arm_kernels.json]

Every distinct kernel of a network runs alone under QEMU and goes through LLVM's model of the core (docs/estimate.md). The
floor is the multiply-accumulates of the network's definition over the lanes of a vector and the multiply-adds that the core
begins in a cycle: below it no direct convolution goes. It is deterministic. Rows are kept in the record as they are made,
and made again with --fresh only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import build, image_size

from reconvene.backends.choosing.choice import choose
from reconvene.backends.choosing.cost import AnalyticCost
from reconvene.backends.estimate.board import core_of
from reconvene.backends.estimate.kernel import estimate_kernel
from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.read import read_relax
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.winograd import WinogradSpec
from reconvene.backends.lowering.plan import make_plan
from reconvene.backends.lowering.survey import KernelUse, kernel_uses
from reconvene.backends.machines.targets import Target, find_target
from reconvene.frontend.base.files import write_text


def main() -> int:
    options = _options()
    record: dict[str, Any] = {"environment": environment(options), "rows": []}
    if options.json and options.json.exists() and not options.fresh:
        record["rows"] = json.loads(options.json.read_text(encoding="utf-8"))["rows"]
    done = {(row["network"], row["target"]) for row in record["rows"]}
    for network in options.networks:
        for name in options.targets:
            if (network, name) in done:
                continue
            rows = measure(network, find_target(name), options)
            record["rows"] += rows
            print(tables({"rows": rows}), flush=True)
            if options.json:
                write_text(options.json, json.dumps(record, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16_cifar", "resnet18", "mobilenet_v2"])
    parser.add_argument("--targets", nargs="+", default=["rpi4", "rpi3", "rpi5"])
    parser.add_argument("--winograd", default="off", choices=["auto", "off", "2x2", "4x4"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", action="store_true", help="print every kernel")
    parser.add_argument("--fresh", action="store_true", help="forget the rows that the record has")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(network: str, target: Target, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each distinct kernel."""
    size = image_size(network, False)
    imported = import_module(build(network), (torch.zeros(options.batch, 3, size, size),)).module
    graph = read_relax(imported)
    fold_channels(graph)
    fold_margins(graph)
    machine, core = target.machine, core_of(target)
    plan = make_plan(graph, machine)
    chosen = choose(plan.tasks, machine, options.winograd, AnalyticCost(machine))
    rows = []
    for use in kernel_uses(plan, chosen):
        cost = estimate_kernel(use.spec.function("kernel"), target, caches=False)
        row = {
            "network": network,
            "target": target.name,
            "kind": kind(use),
            "output": output(use),
            "calls": use.calls,
            "macs": use.macs,
            "floor": use.macs / machine.lanes() / core.multiply_adds,
            "cycles": cost.cycles,
            "throughput_cycles": cost.throughput_cycles,
            "instructions": cost.instructions,
        }
        rows.append(row)
        if options.layers:
            share = row["floor"] / row["cycles"]
            print(
                f"{row['kind']:24} {row['output']} x{use.calls} {row['cycles'] / 1e6:8.3f} Mcycles {share:6.1%}",
                flush=True,
            )
    return rows


def kind(use: KernelUse) -> str:
    """The kind of layer that a kernel computes, by window and stride."""
    spec = use.spec
    if isinstance(spec, WinogradSpec):
        return f"3x3 winograd {spec.size}x{spec.size}"
    if use.family not in ("convolution", "depthwise"):
        return use.family
    pixels = spec.result.height * spec.result.width
    if use.family == "convolution" and pixels == 1 and spec.kernel == (1, 1):
        return "linear"
    name = f"{spec.kernel[0]}x{spec.kernel[1]}"
    name += f" stride {spec.stride[0]}" if spec.stride != (1, 1) else ""
    if use.family == "depthwise":
        return f"depthwise {name}"
    if use.first:
        return f"first {name}"
    return f"grouped {name}" if spec.banded else name


def output(use: KernelUse) -> list[int]:
    """Channels (those of unused lanes too), height and width of the result, where it is an image."""
    spec = use.spec
    view = getattr(spec, "result", None)
    return [view.blocks * view.lanes, view.height, view.width] if hasattr(view, "blocks") else []


def tables(record: dict[str, Any]) -> str:
    """By network and target: every kind of layer, its share of the cycles, and the floor over its cycles."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in record["rows"]:
        groups[row["network"], row["target"]].append(row)
    parts = []
    for (network, target), rows in groups.items():
        parts.append(f"### {network}, {target}\n\n{table(rows)}\n")
    return "\n".join(parts)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown of one network on one target, the dearest kind of layer first."""
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row)
    ordered = sorted(kinds.items(), key=lambda item: -sum(row["calls"] * row["cycles"] for row in item[1]))
    lines = ["| layer | kernels | Mcycles | floor | floor / cycles | lowest |", "|---|---|---|---|---|---|"]
    for name, some in [*ordered, ("**all**", list(rows))]:
        cycles, floor = (sum(row["calls"] * row[key] for row in some) / 1e6 for key in ("cycles", "floor"))
        lowest = min((row["floor"] / row["cycles"] for row in some if row["floor"]), default=0.0)
        share = [f"{floor:.2f}", f"{floor / cycles:.0%}", f"{lowest:.0%}"] if floor else ["", "", ""]
        lines.append(f"| {name} | {len(some)} | {cycles:.2f} | {' | '.join(share)} |")
    return "\n".join(lines)


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "threads": 1,
        "batch": options.batch,
        "dtype": "float32",
        "winograd": options.winograd,
        "versions": {name: metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")},
    }


if __name__ == "__main__":
    raise SystemExit(main())
