"""Exactness, share removed, time and memory of compaction on torchvision's networks.

    python benchmarks/exactness.py [--networks resnet18 swin_t ...] [--json out.json]

Every network runs in a process of its own. Exactness: float64, half of the channels of every prunable group at random,
compared with the masked nn.Module run eagerly, relative to its largest output. Time and memory: float32, the network's
own resolution, M1; analysis and rewriting apart from capture and certificate.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils import _pytree as pytree

sys.path.insert(0, str(Path(__file__).resolve().parent))
from memory import peak_bytes, reset_peak
from models import EXACTNESS, build, image_size, masked_copy, masks_for, randomise

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import analyse, compact
from reconvene.passes.dependency import dependency_view
from reconvene.passes.outcome import Compaction
from reconvene.passes.rewriting import rewrite


def exactness(name: str, kind: str, seed: int) -> dict[str, Any]:
    """Largest relative difference to the masked network in float64, and what was removed."""
    network = randomise(build(name, seed).double(), seed)
    size = image_size(name, small=True)
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    module = capture(network, (inputs,))
    view = dependency_view(canonicalize(module))
    masks = masks_for(view, kind, seed=seed)
    found = compact(module, (inputs,), masks)
    with torch.no_grad():
        expected = pytree.tree_leaves(masked_copy(network, masks)(inputs))
        got = pytree.tree_leaves(found.module(inputs))
    worst = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(expected, got, strict=True))
    return {
        "relative_difference": worst,
        "parameters_removed": 1 - found.after.parameters / found.before.parameters,
        "macs_removed": 1 - found.after.macs / found.before.macs,
        "prunable_groups": sum(group.prunable for group in view.groups),
        "groups": len(view.groups),
        "barriers": sorted({barrier.reason for barrier in view.barriers}),
    }


def cost(name: str, repeats: int) -> dict[str, Any]:
    """Seconds by phase (medians), and the peak memory of analysis and rewriting relative to the network itself."""
    network = randomise(build(name))
    size = image_size(name, small=False)
    inputs = torch.randn(1, 3, size, size)
    began = time.perf_counter()
    module = capture(network, (inputs,))
    captured = time.perf_counter() - began
    grouping = [seconds_for_groups(module) for _ in range(repeats)]
    masks = masks_for(dependency_view(canonicalize(module)), "M1")
    held = sum(tensor.numel() * tensor.element_size() for tensor in [*network.parameters(), *network.buffers()])
    runs: list[Compaction] = []
    before = reset_peak()
    rewrite(*analyse(module, masks))
    peak = peak_bytes() - before
    for _ in range(repeats):
        found = compact(module, (inputs,), masks)
        runs.append(replace(found, module=torch.fx.GraphModule({}, torch.fx.Graph())))  # Keeps no second model alive.
    seconds = {phase: median(run.seconds[phase] for run in runs) for phase in runs[0].seconds}
    return {
        "capture_seconds": captured,
        "grouping_seconds": median(grouping),
        "seconds": seconds,
        "peak_over_model": (held + peak) / held,
        "model_bytes": held,
    }


def seconds_for_groups(module: torch.fx.GraphModule) -> float:
    """From a captured graph to its channel groups."""
    began = time.perf_counter()
    _ = dependency_view(canonicalize(module)).groups
    return time.perf_counter() - began


def measure(name: str, seed: int, repeats: int) -> dict[str, Any]:
    """Everything about one network, in this process."""
    torch.set_num_threads(2)
    row: dict[str, Any] = {"network": name, "cost": cost(name, repeats)}
    for kind in ("M1", "M2"):
        row[kind] = exactness(name, kind, seed)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | M1 difference | M2 difference | parameters removed M1 / M2 | groups | capture s | groups s "
        "| analysis + rewrite s | certificate s | peak memory / model |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first, second, spent = row["M1"], row["M2"], row["cost"]
        seconds = spent["seconds"]
        lines.append(
            f"| {row['network']} | {first['relative_difference']:.1e} | {second['relative_difference']:.1e} "
            f"| {first['parameters_removed']:.1%} / {second['parameters_removed']:.1%} "
            f"| {first['prunable_groups']} of {first['groups']} | {spent['capture_seconds']:.2f} "
            f"| {spent['grouping_seconds']:.2f} | {seconds['analysis'] + seconds['rewrite']:.2f} "
            f"| {seconds['certificate']:.2f} | {spent['peak_over_model']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=EXACTNESS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.seed, options.repeats)))
        return
    rows = []
    for name in options.networks:
        command = [
            sys.executable,
            __file__,
            "--one",
            name,
            "--seed",
            str(options.seed),
            "--repeats",
            str(options.repeats),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"{name} done", file=sys.stderr)
    print(table(rows))
    if options.json:
        setting = {"torch": torch.__version__, "python": platform.python_version(), "threads": 2, "seed": options.seed}
        options.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
