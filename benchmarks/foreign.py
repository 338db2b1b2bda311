"""Which part of small networks' time is general code, operators that no kernel of ours computes, and who they are.

    python benchmarks/foreign.py [--networks tcn ...] [--json foreign.json] [--engines reconvene onnxruntime]

Networks are of the kinds that are not convolutions of images: sound, series, points, generators, attention. For each: the time
of one pass in turns with the other engines, the share of general code, and its kernels, the dearest first. One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import ENGINES, lacking, prepare
from foreign_networks import NETWORKS

from reconvene.backends.compile import compile
from reconvene.backends.kernel_seconds import kernel_seconds
from reconvene.backends.measure import time_calls, torch_threads
from reconvene.frontend.base.files import write_text

SHOWN = 5
"""Kernels of a network that are printed."""


def main() -> int:
    options = _options()
    if problem := lacking(options.engines):
        print(f"error: {problem}")
        return 2
    rows = []
    for name in options.networks:
        row = measured(name, NETWORKS[name], options.engines, options.repeat)
        rows.append(row)
        print(line(row), flush=True)
        if options.json is not None:
            write_text(options.json, json.dumps(rows, indent=2) + "\n")
    ratios = [row["ratio"] for row in rows if row["ratio"]]
    if ratios:
        print(
            f"geometric mean of ours over the best other engine: {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}"
        )
    return 0


def measured(name: str, network: Callable[[], Any], engines: list[str], repeat: int) -> dict[str, Any]:
    """One network's times in milliseconds, and those of its kernels."""
    torch.manual_seed(0)
    module, inputs = network()
    module.eval()
    with torch_threads(1):
        built = compile(module, inputs)
        calls = {
            engine: built.prepared(*inputs) if engine == "reconvene" else prepare(engine, module, inputs, 1, "model")
            for engine in engines
        }
        times = {engine: timing.minimum_ms for engine, timing in time_calls(calls, repeat, threads=1).items()}
        kernels = kernel_seconds(built, *inputs, rounds=repeat)
    whole = sum(kernel.seconds for kernel in kernels)
    general = [kernel for kernel in kernels if kernel.general]
    others = [value for engine, value in times.items() if engine != "reconvene"]
    return {
        "network": name,
        "milliseconds": times,
        "ratio": times["reconvene"] / min(others) if others and "reconvene" in times else None,
        "general": sum(kernel.seconds for kernel in general) / whole,
        "operators": list(built.foreign),
        "kernels": [{**asdict(kernel), "share": kernel.seconds / whole} for kernel in kernels],
    }


def line(row: dict[str, Any]) -> str:
    """For a terminal."""
    times = ", ".join(f"{engine} {value:.3f}" for engine, value in row["milliseconds"].items())
    ratio = f" ({row['ratio']:.2f})" if row["ratio"] else ""
    shown = [
        f"    {kernel['share']:6.1%} {'general ' if kernel['general'] else '        '}{kernel['name']} x{kernel['calls']}"
        for kernel in row["kernels"][:SHOWN]
    ]
    return "\n".join([f"{row['network']}: {times} ms{ratio}; {row['general']:.1%} general code", *shown])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--engines", nargs="+", default=["reconvene", "onnxruntime"], choices=list(ENGINES))
    parser.add_argument("--repeat", type=int, default=20, help="calls of each engine, in turns; the least counts")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
