"""How good estimates are: the same chain for x86, held against real time on this machine, kernel by kernel.

    python benchmarks/estimate_validation.py [--json docs/results/estimate_validation.json]

There is no ARM board here, so the chain is judged where time can be measured: the same kernels, compiled for AVX2 (the
widest vectors that QEMU 7.2 runs), run under qemu-x86_64 and through llvm-mca's model of this machine's core, and natively
on one thread. Modelled cycles over measured time is the clock that the machine would have to run at. The true clock is not
known (virtual machines hide it), so the median over all kernels stands for it, and a kernel's error is its distance from
that. Kernels take turns, so that a busy machine slows all alike; still, run it on a quiet one. A page is written beside
the record.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tvm import IRModule, tirx

sys.path.insert(0, str(Path(__file__).resolve().parent))
from latency import cpu_name

from reconvene.backends.compile import compile
from reconvene.backends.estimate.board import core_of
from reconvene.backends.estimate.core_model import CORES, find_core
from reconvene.backends.estimate.kernel import KernelProgram, estimate_kernel, kernel_program
from reconvene.backends.machines.targets import Target, find_target
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import write_text


def convolution(inputs: int, outputs: int, size: int, kernel: int, **options: Any) -> tuple[nn.Module, tuple[int, ...]]:
    options.setdefault("padding", kernel // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.ReLU()), (1, inputs, size, size)


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "3x3 64-64 16px": (*convolution(64, 64, 16, 3), "convolution"),
    "3x3 32-32 32px": (*convolution(32, 32, 32, 3), "convolution"),
    "3x3 128-128 8px": (*convolution(128, 128, 8, 3), "convolution"),
    "3x3 48-80 15px": (*convolution(48, 80, 15, 3), "convolution"),
    "3x3 stride 2 32-64 32px": (*convolution(32, 64, 32, 3, stride=2), "convolution"),
    "1x1 64-128 14px": (*convolution(64, 128, 14, 1), "convolution"),
    "1x1 16-96 28px": (*convolution(16, 96, 28, 1), "convolution"),
    "5x5 16-32 16px": (*convolution(16, 32, 16, 5), "convolution"),
    "first layer 3-64 32px": (*convolution(3, 64, 32, 3), "convolution"),
    "grouped 64-64 16px": (*convolution(64, 64, 16, 3, groups=4), "convolution"),
    "linear 256-256": (nn.Linear(256, 256), (1, 256), "convolution"),
    "Winograd 2x2 64-64 16px": (*convolution(64, 64, 16, 3), "winograd 2x2"),
    "Winograd 4x4 64-64 28px": (*convolution(64, 64, 28, 3), "winograd 4x4"),
    "depthwise 96 28px": (*convolution(96, 96, 28, 3, groups=96), "depthwise"),
    "depthwise stride 2 96 28px": (*convolution(96, 96, 28, 3, groups=96, stride=2), "depthwise"),
    "max pool 64 32px": (nn.MaxPool2d(2), (1, 64, 32, 32), "pool"),
    "mean 256 14px": (nn.AdaptiveAvgPool2d(1), (1, 256, 14, 14), "mean"),
    "softmax 64x128": (nn.Softmax(-1), (1, 4, 64, 128), "softmax"),
    "pack 64 32px": (nn.MaxPool2d(2), (1, 64, 32, 32), "pack"),
}
"""By name: a layer, its input's shape, and which of its kernels is measured (its family, and of Winograd's the tile). All
data fits into the level-2 cache.
"""


def main() -> int:
    options = _options()
    target = x86_target()
    rows = measure(target, options.repeat, options.rounds)
    print(table(rows))
    if options.json:
        record = {"environment": environment(target, options), "rows": rows}
        write_text(options.json, json.dumps(record, indent=2) + "\n")
        write_text(options.json.with_suffix(".md"), page(record))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeat", type=int, default=300, help="runs of a kernel in a round")
    parser.add_argument("--rounds", type=int, default=9, help="times that every kernel gets its turn")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def x86_target() -> Target:
    """This machine, limited to AVX2, with llvm-mca's model of its core, or else of the Zen 3."""
    host = find_target("host")
    if host.architecture != "x86_64":
        raise SystemExit("the validation needs an x86-64 machine")
    core = host.cpu if host.cpu in CORES else "znver3"
    try:
        find_core("x86_64", core)
    except InputError:
        core = "znver3"
    lanes = min(host.lanes, 8)
    return replace(
        host,
        name="x86-avx2",
        cpu="znver3",
        lanes=lanes,
        registers=16,
        channel_multiple=lanes,
        qemu_cpu="max",
        mca_cpu=core,
    )


def measure(target: Target, repeat: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each kernel: modelled cycles, measured times, the clock they imply, the distance from the median clock."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        programs: dict[str, KernelProgram] = {}
        for index, (name, (layer, shape, family)) in enumerate(LAYERS.items()):
            kernel = kernel_of(layer, shape, family, target)
            cost = estimate_kernel(kernel, target)
            place = Path(folder) / str(index)
            place.mkdir()
            programs[name] = kernel_program(kernel, target, place)
            rows.append(
                {
                    "kernel": name,
                    "instructions": cost.instructions,
                    "cycles": cost.cycles,
                    "throughput_cycles": cost.throughput_cycles,
                    "l1_misses": cost.l1_misses,
                }
            )
        times: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                times[name].append(microseconds(program, repeat))
    for row in rows:
        row["microseconds"] = statistics.median(times[row["kernel"]])
        row["fastest_microseconds"] = min(times[row["kernel"]])
        row["implied_ghz"] = row["cycles"] / row["microseconds"] / 1e3
    clock = statistics.median(row["implied_ghz"] for row in rows)
    for row in rows:
        row["error"] = row["implied_ghz"] / clock - 1
    return rows


def kernel_of(layer: nn.Module, shape: tuple[int, ...], family: str, target: Target) -> IRModule:
    """The kernel of that family which our pipeline makes for a layer."""
    family, _, tile = family.partition(" ")
    winograd: Any = tile or "off"
    built = compile(layer.eval(), (torch.zeros(shape),), target, winograd=winograd)
    for variable, function in built.artifact.scheduled.functions.items():
        if isinstance(function, tirx.PrimFunc) and variable.name_hint.startswith(family):
            return IRModule({variable.name_hint: function})
    raise SystemExit(f"no kernel of the family '{family}' was made")


def microseconds(program: KernelProgram, repeat: int) -> float:
    """The median time of a call, of `repeat` in one process."""
    call = program.call(repeat, timed=True)
    result = subprocess.run(call, capture_output=True, text=True, check=True)
    return statistics.median(map(int, result.stdout.split())) / 1e3


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: every kernel, and a line about all."""
    lines = [
        "| kernel | instructions | modelled cycles | busiest unit alone | measured µs | implied GHz | error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["kernel"],
            f"{row['instructions']:,}",
            f"{row['cycles']:,.0f}",
            f"{row['throughput_cycles']:,.0f}",
            f"{row['microseconds']:.1f}",
            f"{row['implied_ghz']:.2f}",
            f"{100 * row['error']:+.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    errors = sorted(abs(row["error"]) for row in rows)
    lines.append(f"\nMedian error {100 * statistics.median(errors):.1f} %, largest {100 * errors[-1]:.1f} %.")
    return "\n".join(lines)


PAGE = """# Estimates against real time

Made by `benchmarks/estimate_validation.py`: x86 kernels, because time can be measured there; [why, and what it
shows](../estimate.md). The implied clock is modelled cycles over measured time (median); the error is its distance from the
median clock of all kernels.
"""


def page(record: dict[str, Any]) -> str:
    """The record as a page."""
    setting = "; ".join(f"{key} {value}" for key, value in record["environment"].items())
    return "\n".join([PAGE, f"{setting}.", "", table(record["rows"]), ""])


def environment(target: Target, options: argparse.Namespace) -> dict[str, Any]:
    """All that somebody needs to judge or repeat the numbers."""
    core = core_of(target)
    return {
        "cpu": cpu_name(),
        "core_model": core.model,
        "llvm": core.llvm,
        "compiled_for": target.cpu,
        "load_average": os.getloadavg()[0],
        "repeat": options.repeat,
        "rounds": options.rounds,
        "threads": 1,
        "dtype": "float32",
        "versions": {name: metadata.version(name) for name in ("torch", "apache-tvm")},
    }


if __name__ == "__main__":
    raise SystemExit(main())
