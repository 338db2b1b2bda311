"""Latency of dense and channel-pruned networks: our pipeline, TVM's own, and PyTorch eager, side by side.

    python benchmarks/latency.py [--networks vgg16_cifar resnet18 ...] [--json latency.json]

All variants and engines of a network take turns in one run, so a busy machine slows all of them alike:
trust the ratios, and quote milliseconds only with the machine's name. Pruned networks come from
``reconvene.prune`` by random scores, which costs the same to run as any other choice of as many channels.
Every compiled network is compared with eager before it is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import build, image_size

from reconvene import prune
from reconvene.backends.compile import compile
from reconvene.backends.measure import ENGINES, Timing, time_calls, torch_threads
from reconvene.backends.targets import find_target

TOLERANCE = 1e-4
"""Largest difference from eager, relative to the largest output, at which a time is worth reporting."""


def main() -> int:
    options = _options()
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        found = measure(network, options)
        rows.extend(found)
        print(table(found), flush=True)
    if options.json:
        record = {"environment": environment(options), "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16_cifar", "resnet18"])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.5], help="share of channels removed")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(network: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each variant and engine of `network`, all timed in one interleaved run."""
    size = image_size(network, False)
    generator = torch.Generator().manual_seed(options.seed)
    inputs = (torch.randn(options.batch, 3, size, size, generator=generator),)
    variants = {"dense": build(network, options.seed)}
    macs: dict[str, int | None] = {"dense": None}
    for sparsity in options.sparsity:
        dense = build(network, options.seed)
        result = prune(dense, inputs, method="random", sparsity=sparsity, seed=options.seed)
        name = f"pruned {sparsity:.0%}"
        variants[name], macs[name] = result.module, result.report.after.macs
        macs["dense"] = result.report.before.macs
    calls = {
        (variant, engine): candidate(module, inputs, engine, options.threads)
        for variant, module in variants.items()
        for engine in options.engines
    }
    with torch_threads(options.threads):
        named = {f"{variant}/{engine}": call for (variant, engine), call in calls.items()}
        timings = time_calls(named, options.repeat, threads=options.threads, batch=options.batch)
    return [row(network, variant, engine, macs[variant], timings[f"{variant}/{engine}"]) for variant, engine in calls]


def candidate(module: nn.Module, inputs: tuple[Any, ...], engine: str, threads: int) -> Callable[[], object]:
    """A call to time; compiled ones are compared with eager first."""

    def eager() -> Any:
        with torch.inference_mode():
            return module(*inputs)

    if engine == "eager":
        return eager
    pipeline: Any = engine
    built = compile(module, inputs, threads=threads, pipeline=pipeline)
    expected, got = eager(), built.run(*inputs)
    difference = float((got - expected).abs().max() / expected.abs().max())
    if difference > TOLERANCE:
        raise SystemExit(f"{engine} differs from eager by {difference:.1e} of the largest output; not timed")
    return built.prepared(*inputs)


def row(network: str, variant: str, engine: str, macs: int | None, timing: Timing) -> dict[str, Any]:
    rate = None if macs is None else 2e-6 * macs * timing.batch / timing.median_ms
    return {
        "network": network,
        "variant": variant,
        "engine": engine,
        "macs": macs,
        "gflops": rate,
        **asdict(timing),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians in milliseconds with p10 to p90, and how much faster than eager and than the dense network."""
    lines = [
        "| network | engine | ms | p10-p90 | against eager | against dense |",
        "|---|---|---|---|---|---|",
    ]
    median = {(entry["variant"], entry["engine"]): entry["median_ms"] for entry in rows}
    for entry in rows:
        eager = median.get((entry["variant"], "eager"))
        dense = median[("dense", entry["engine"])]
        ms = entry["median_ms"]
        cells = [
            f"{entry['network']} {entry['variant']}",
            entry["engine"],
            f"{ms:.2f}",
            f"{entry['p10_ms']:.2f}-{entry['p90_ms']:.2f}",
            f"{eager / ms:.2f}x" if eager else "-",
            f"{dense / ms:.2f}x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """All that somebody needs to judge or repeat the numbers."""
    host = find_target("host")
    return {
        "cpu": cpu_name(),
        "llvm_cpu": host.cpu,
        "lanes": host.lanes,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "apache-tvm", "apache-tvm-ffi")},
        "dtype": "float32",
        **{k: v for k, v in vars(options).items() if k != "json"},
    }


def cpu_name() -> str:
    """As Linux tells it, or as the platform does."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
