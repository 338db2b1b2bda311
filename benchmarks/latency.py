"""Latency of dense and channel-pruned networks on every engine, side by side.

    python benchmarks/latency.py --json latency.json [--networks vgg16_cifar ...] [--seconds 600]

A cell is one network at one batch size and thread count: all its variants and engines take turns in one run, so a busy
machine slows all of them alike. Trust the ratios, and quote milliseconds only with the machine's name. With --json every
finished cell is saved, and the cells that are there already are not measured again; --seconds stops before a cell that
would begin later. Run the same line again to go on.

Pruned networks come from ``reconvene.prune`` by random scores, which costs the same to run as any other choice of as many
channels. Every engine's outputs are compared with eager's before it is timed. Engines other than PyTorch's and ours need
``pip install .[benchmarks]``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import ENGINES, PACKAGES, difference, lacking, prepare
from models import build, image_size

from reconvene import prune
from reconvene.backends.machines.targets import find_target
from reconvene.backends.measure import time_calls, torch_threads
from reconvene.frontend.base.files import write_text

TOLERANCE = 1e-4
"""Largest difference from eager, relative to the largest output, at which a time is worth reporting."""

NETWORKS = (
    "vgg16_cifar resnet20_cifar resnet18 resnet50 mobilenet_v2 mobilenet_v3_small efficientnet_lite0 squeezenet1_1"
).split()

SETTLE = 0.02
"""Seconds that the threads of one engine are given to fall asleep before the next engine's turn, where there are several."""

SLOW = ("tvm-default",)
"""Engines that are measured with one image and one thread only."""


def main() -> int:
    options = _options()
    rows = _saved(options.json)
    started = time.monotonic()
    for network in options.networks:
        for batch in options.batch:
            for threads in options.threads:
                engines = [e for e in options.engines if batch == threads == 1 or e not in SLOW]
                if _done(rows, network, batch, threads, engines):
                    continue
                if options.seconds and time.monotonic() - started > options.seconds:
                    print("out of time; run the same line again to go on", file=sys.stderr)
                    return 0
                found = measure(network, batch, threads, engines, options)
                rows = [row for row in rows if cell(row) != (network, batch, threads)] + found
                print(table(found) + "\n", flush=True)
                if options.json:
                    record = {"environment": environment(options), "rows": rows}
                    write_text(options.json, json.dumps(record, indent=1) + "\n")
    print(f"{summary(rows)}\n\n{by_engine(rows)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--sparsity", type=float, nargs="*", default=[0.5], help="share of channels removed")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--choose", default="time", choices=["time", "model", "default"], help="our kernels: how")
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, help="begin no cell later than this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if told := lacking(options.engines):
        parser.error(told)
    return options


def _saved(path: Path | None) -> list[dict[str, Any]]:
    """The rows of an earlier run, if there was one."""
    if path is None or not path.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def cell(row: dict[str, Any]) -> tuple[str, int, int]:
    """What was measured together."""
    return row["network"], row["batch"], row["threads"]


def _done(rows: Sequence[dict[str, Any]], network: str, batch: int, threads: int, engines: Sequence[str]) -> bool:
    found = {row["engine"] for row in rows if cell(row) == (network, batch, threads)}
    return set(engines) <= found


def measure(
    network: str, batch: int, threads: int, engines: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each variant and engine of a cell, all timed in one interleaved run."""
    size = image_size(network, False)
    generator = torch.Generator().manual_seed(options.seed)
    inputs = (torch.randn(batch, 3, size, size, generator=generator),)
    variants, macs = _variants(network, inputs, options)
    calls, facts = {}, {}
    with torch_threads(threads):
        for variant, module in variants.items():
            with torch.inference_mode():
                expected = module(*inputs).clone()
            for engine in engines:
                begun = time.perf_counter()
                call = prepare(engine, module, inputs, threads, options.choose)
                ready = time.perf_counter() - begun
                found = difference(call(), expected)
                if found > TOLERANCE:
                    raise SystemExit(f"{engine} differs from eager by {found:.1e} of the largest output; not timed")
                calls[f"{variant}/{engine}"] = call
                facts[f"{variant}/{engine}"] = {"difference": found, "prepare_s": ready}
        settle = SETTLE if threads > 1 else 0.0
        timings = time_calls(calls, options.repeat, threads=threads, batch=batch, settle=settle)
    rows = []
    for name, timing in timings.items():
        variant, _, engine = name.partition("/")
        count = macs[variant]
        rate = None if count is None else 2e-6 * count * batch / timing.median_ms
        of = {"network": network, "variant": variant, "engine": engine, "macs": count, "gflops": rate}
        rows.append({**of, **facts[name], **asdict(timing)})
    return rows


def _variants(
    network: str, inputs: tuple[torch.Tensor, ...], options: argparse.Namespace
) -> tuple[dict[str, nn.Module], dict[str, int | None]]:
    """The dense network and pruned ones by name, and the multiply-accumulates of one image."""
    variants: dict[str, nn.Module] = {"dense": build(network, options.seed)}
    macs: dict[str, int | None] = {"dense": None}
    one = tuple(value[:1] for value in inputs)
    for sparsity in options.sparsity:
        result = prune(build(network, options.seed), one, method="random", sparsity=sparsity, seed=options.seed)
        name = f"pruned {sparsity:.0%}"
        # The graph holds the batch size it was captured with, so that it is captured again for this one.
        plan = result.plan
        small = result if len(inputs[0]) == 1 else _again(network, inputs, plan, options.seed)
        variants[name], macs[name] = small.module, result.report.after.macs
        macs["dense"] = result.report.before.macs
    return variants, macs


def _again(network: str, inputs: tuple[torch.Tensor, ...], plan: Any, seed: int) -> Any:
    from reconvene import compact

    return compact(build(network, seed), inputs, plan=plan)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Medians in milliseconds with p10 to p90, and how much faster than eager and than the dense network."""
    lines = [
        "| network | batch | threads | engine | ms | p10-p90 | against eager | against dense |",
        "|---|---|---|---|---|---|---|---|",
    ]
    median = {(*cell(row), row["variant"], row["engine"]): row["median_ms"] for row in rows}
    for entry in rows:
        of = cell(entry)
        eager = median.get((*of, entry["variant"], "eager"))
        dense = median[(*of, "dense", entry["engine"])]
        ms = entry["median_ms"]
        cells = [
            f"{entry['network']} {entry['variant']}",
            str(entry["batch"]),
            str(entry["threads"]),
            entry["engine"],
            f"{ms:.2f}",
            f"{entry['p10_ms']:.2f}-{entry['p90_ms']:.2f}",
            f"{eager / ms:.2f}x" if eager else "-",
            f"{dense / ms:.2f}x",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """By batch and threads: our time over the best other engine's, and the speed-up over the reduction of MACs."""
    lines = [
        "| batch | threads | networks | ours / best other, dense | ours / best other, pruned | speed-up / MAC reduction |",
        "|---|---|---|---|---|---|",
    ]
    for batch, threads in sorted({(row["batch"], row["threads"]) for row in rows}):
        some = [row for row in rows if (row["batch"], row["threads"]) == (batch, threads)]
        names = sorted({row["network"] for row in some})
        dense = [_against_best(some, name, lambda variant: variant == "dense") for name in names]
        pruned = [_against_best(some, name, lambda variant: variant != "dense") for name in names]
        kept = [_per_mac(some, name) for name in names]
        cells = [str(batch), str(threads), str(len(names)), _mean(dense), _mean(pruned), _mean(kept)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def by_engine(rows: Sequence[dict[str, Any]]) -> str:
    """How much of the reduction of multiply-accumulates each engine turns into speed, and what threads gain it.

    Geometric means over networks. Threads: an engine's time on one, over its time on several, dense networks.
    """
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    lines = [f"| | batch | threads | {' | '.join(engines)} |", f"|{'---|' * (3 + len(engines))}"]
    for batch, threads in sorted({(row["batch"], row["threads"]) for row in rows}):
        some = [row for row in rows if (row["batch"], row["threads"]) == (batch, threads)]
        names = sorted({row["network"] for row in some})
        kept = [_mean(_per_mac(some, name, engine) for name in names) for engine in engines]
        lines.append(f"| speed-up / MAC reduction | {batch} | {threads} | {' | '.join(kept)} |")
    for batch, threads in sorted({(row["batch"], row["threads"]) for row in rows if row["threads"] > 1}):
        names = sorted({row["network"] for row in rows})
        gained = [_mean(_gain(rows, name, engine, batch, threads) for name in names) for engine in engines]
        lines.append(f"| faster than on one thread | {batch} | {threads} | {' | '.join(gained)} |")
    return "\n".join(lines)


def _gain(rows: Sequence[dict[str, Any]], network: str, engine: str, batch: int, threads: int) -> float | None:
    """An engine's time for the dense network on one thread, over that on `threads`."""
    times = {
        row["threads"]: row["median_ms"]
        for row in rows
        if (row["network"], row["engine"], row["batch"], row["variant"]) == (network, engine, batch, "dense")
    }
    return times[1] / times[threads] if 1 in times and threads in times else None


def _against_best(rows: Sequence[dict[str, Any]], network: str, wanted: Any) -> float | None:
    """Our median over the least median of the other engines."""
    some = [row for row in rows if row["network"] == network and wanted(row["variant"])]
    ours = [row["median_ms"] for row in some if row["engine"] == "reconvene"]
    others = [row["median_ms"] for row in some if row["engine"] != "reconvene"]
    return min(ours) / min(others) if ours and others else None


def _per_mac(rows: Sequence[dict[str, Any]], network: str, engine: str = "reconvene") -> float | None:
    """How much of the reduction of multiply-accumulates an engine turns into speed."""
    ours = [row for row in rows if row["network"] == network and row["engine"] == engine]
    dense = next((row for row in ours if row["variant"] == "dense"), None)
    pruned = next((row for row in ours if row["variant"] != "dense"), None)
    if dense is None or pruned is None:
        return None
    return (dense["median_ms"] / pruned["median_ms"]) / (dense["macs"] / pruned["macs"])


def _mean(values: Iterable[float | None]) -> str:
    """The geometric mean."""
    known = [math.log(value) for value in values if value is not None]
    return f"{math.exp(sum(known) / len(known)):.2f}" if known else "-"


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """All that somebody needs to judge or repeat the numbers."""
    host = find_target("host")
    packages = ["torch", "apache-tvm", "apache-tvm-ffi", *(PACKAGES[e] for e in options.engines if e in PACKAGES)]
    return {
        "cpu": cpu_name(),
        "llvm_cpu": host.cpu,
        "lanes": host.lanes,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "dtype": "float32",
        **{k: v for k, v in vars(options).items() if k not in ("json", "seconds")},
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
