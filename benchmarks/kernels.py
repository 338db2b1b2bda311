"""How near our kernels come to the machine: the share of the measured multiply-add peak by kind of layer, and a roofline.

    python benchmarks/kernels.py --json docs/results/kernels.json --plot docs/results/roofline.svg [--networks resnet18 ...]

Every distinct convolution of the networks runs alone, with cold weights, as ``compile(choose=...)`` would compute it. The
peak is that of a loop of independent multiply-adds in registers, and the bandwidth that of a sum over an array larger than
the caches, both measured by the same program. Rates count the multiply-accumulates of the definition, so that Winograd's
kernels can exceed the peak. With one thread a kernel is timed by the thread's own clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tvm

sys.path.insert(0, str(Path(__file__).resolve().parent))
from charts import chart, save
from latency import cpu_name
from models import build, image_size

from reconvene.backends.choosing.choice import choose
from reconvene.backends.choosing.cost import AnalyticCost, Costs, Judged
from reconvene.backends.choosing.kernel_times import HereTimes
from reconvene.backends.choosing.width import fitting_plan
from reconvene.backends.graph.fold import fold_channels, fold_margins
from reconvene.backends.graph.read import read_relax
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels import loops
from reconvene.backends.kernels.base import Trial, trial_of
from reconvene.backends.kernels.depthwise import DepthwiseSpec
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.kernels.winograd import WinogradSpec
from reconvene.backends.lowering.plan import make_plan
from reconvene.backends.lowering.survey import KernelUse, kernel_uses
from reconvene.backends.machines.targets import Target, find_target
from reconvene.frontend.base.files import write_text

_PEAK_STEPS = 200_000
_STREAM_BYTES = 128 * 2**20


def main() -> int:
    options = _options()
    target = find_target("host")
    llvm = tvm.target.Target(target.llvm())
    peak, bandwidth = measured_peak(target, llvm), measured_bandwidth()
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        rows += measure(network, target, llvm, options)
    for row in rows:
        row["of_peak"] = row["gflops"] / peak
    print(f"peak {peak:.1f} GF/s, bandwidth {bandwidth:.1f} GB/s, one thread, {cpu_name()}\n")
    print(table(rows))
    if options.json:
        setting = {"cpu": cpu_name(), "llvm_cpu": target.cpu, "peak_gflops": peak, "bandwidth_gbs": bandwidth}
        setting |= {"threads": 1, "dtype": "float32", "batch": options.batch, "choose": options.choose}
        record = {"environment": setting, "rows": rows}
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.plot:
        roofline(rows, peak, bandwidth, options.plot)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["vgg16_cifar", "resnet18", "resnet50", "mobilenet_v2"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--choose", default="model", choices=["time", "model", "default"])
    parser.add_argument("--winograd", default="auto", choices=["auto", "off", "2x2", "4x4"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def measured_peak(target: Target, llvm: Any) -> float:
    """GF/s of multiply-adds on as many independent accumulators as the machine needs, one thread."""
    machine = target.machine
    count, lanes = 12, machine.lanes()

    def body(factors: Any, result: Any) -> None:
        sums = loops.local(count * lanes)
        with loops.unroll(count) as slot:
            loops.store(sums, slot * lanes, loops.load(factors, 0, lanes), lanes)
        with loops.serial(_PEAK_STEPS), loops.unroll(count) as slot:
            product = loops.load(sums, slot * lanes, lanes) * loops.load(factors, lanes, lanes)
            loops.store(sums, slot * lanes, product + loops.load(factors, 2 * lanes, lanes), lanes)
        with loops.unroll(count) as slot:
            loops.store(result, slot * lanes, loops.load(sums, slot * lanes, lanes), lanes)

    arguments = [("factors", (3 * lanes,), "float32"), ("result", (count * lanes,), "float32")]
    seconds = HereTimes(llvm, 1)([[Trial(loops.kernel("peak", arguments, body))]])[0][0]
    return 2e-9 * _PEAK_STEPS * count * lanes / seconds


def measured_bandwidth() -> float:
    """GB/s of reading an array larger than the caches, one thread."""
    array = np.ones(_STREAM_BYTES // 8)
    least = float("inf")
    for _ in range(5):
        start = time.thread_time()
        array.max()
        least = min(least, time.thread_time() - start)
    return 1e-9 * _STREAM_BYTES / least


def measure(network: str, target: Target, llvm: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each distinct convolution, depthwise ones too, or linear layer."""
    size = image_size(network, False)
    imported = import_module(build(network), (torch.zeros(options.batch, 3, size, size),)).module
    graph = read_relax(imported)
    fold_channels(graph)
    fold_margins(graph)
    machine: Machine = target.machine
    costs: dict[str, Costs | None] = {
        "time": Judged(HereTimes(llvm, 1)),
        "model": AnalyticCost(machine),
        "default": None,
    }
    cost = costs[options.choose]
    plan = make_plan(graph, machine) if cost is None else fitting_plan(graph, machine, options.winograd)
    chosen = choose(plan.tasks, plan.machine, options.winograd, cost)
    uses = [use for use in kernel_uses(plan, chosen) if use.macs]
    seconds = HereTimes(llvm, 1)([[trial_of(use.spec)] for use in uses])
    return [_row(network, use, row[0]) for use, row in zip(uses, seconds, strict=True)]


def _row(network: str, use: KernelUse, seconds: float) -> dict[str, Any]:
    spec = use.spec
    winograd = isinstance(spec, WinogradSpec)
    kernel = (3, 3) if isinstance(spec, WinogradSpec) else spec.kernel
    stride = (1, 1) if isinstance(spec, WinogradSpec) else spec.stride
    result = spec.result
    depthwise = isinstance(spec, DepthwiseSpec)
    moved = 4 * (spec.source.size + result.size) + spec.weight_bytes
    return {
        "network": network,
        "kind": ("depthwise " if depthwise else "") + _kind(kernel, stride, result.height * result.width),
        "algorithm": f"winograd {spec.size}x{spec.size}" if isinstance(spec, WinogradSpec) else "direct",
        "output": [result.batch, result.blocks * result.lanes, result.height, result.width],
        "seconds": seconds,
        "gflops": 2e-9 * use.macs / seconds,
        "flops_per_byte": 2 * use.macs / moved,
        "winograd": winograd,
    }


def _kind(kernel: tuple[int, int], stride: tuple[int, int], pixels: int) -> str:
    if pixels == 1:
        return "linear"
    return f"{kernel[0]}x{kernel[1]}" + (f" stride {stride[0]}" if stride != (1, 1) else "")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """By kind of layer and algorithm: layers, and the share of the peak over all of them and at worst."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"], row["algorithm"]].append(row)
    lines = ["| layer | algorithm | kernels | share of peak | lowest |", "|---|---|---|---|---|"]
    for (kind, algorithm), some in sorted(kinds.items()):
        share = sum(r["of_peak"] * r["seconds"] for r in some) / sum(r["seconds"] for r in some)
        lowest = min(r["of_peak"] for r in some)
        lines.append(f"| {kind} | {algorithm} | {len(some)} | {share:.0%} | {lowest:.0%} |")
    return "\n".join(lines)


def roofline(rows: Sequence[dict[str, Any]], peak: float, bandwidth: float, path: Path) -> None:
    """Draws rates over arithmetic intensity, under the two limits of the machine."""
    figure, axes = chart("operations per byte of weights, input and output", "GF/s", logarithmic=True)
    ends = [0.25, peak / bandwidth, 1000.0]
    axes.plot(ends, [min(peak, bandwidth * end) for end in ends], "k-", label="peak and memory bandwidth")
    for kind, algorithm in sorted({(row["kind"], row["algorithm"]) for row in rows}):
        some = [row for row in rows if (row["kind"], row["algorithm"]) == (kind, algorithm)]
        label = f"{kind}, {algorithm}"
        axes.plot([row["flops_per_byte"] for row in some], [row["gflops"] for row in some], "o", label=label)
    save(figure, axes, path)


if __name__ == "__main__":
    raise SystemExit(main())
