"""Seconds from an untrained model to the compacted, re-initialised graph, for every score.

    python benchmarks/scores.py [--networks vgg16-cifar resnet50-imagenet ...] [--json docs/results/scores.json]
    python benchmarks/scores.py --find 16.21 --networks vgg16-cifar

Wall seconds, and seconds of CPU beside them, because a machine with other work on it makes the former meaningless. The
capture of the model (torch.export) and the certificate are listed by themselves; what torch imports at a process's first
capture is listed for all. Score's rounds are its authors' (SynFlow:
100). SNIP and GraSP score on one synthetic batch. ``--find`` looks for the smallest p, in steps of a two-hundredth, that
leaves so many times fewer parameters, and measures size, multiply-accumulates and latency there, by each rule of how many
channels stay. ``--width`` takes a share of the channels, to find the p to train at by ``accuracy.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reconvene.driver.reports.latency import measure as latency
from reconvene.driver.reports.profile import profile
from reconvene.driver.reports.report import environment
from reconvene.frontend.capture import capture
from reconvene.frontend.networks.papers import find_network, network_for
from reconvene.passes.pruning.decisions import AS_WANTED, Widths
from reconvene.passes.pruning.methods.base import Aim, Pruned
from reconvene.passes.pruning.methods.reconvene import Reconvene
from reconvene.passes.pruning.scores import SCORES, Evidence, synthetic_batches

_STEP = 200
RULES = {
    "channels": (Reconvene(keep="channels", ends="pruned"), Widths(multiple=1, minimum=1)),
    "density": (Reconvene(), AS_WANTED),
    "density, no threshold": (Reconvene(threshold="none"), AS_WANTED),
}
"""How many channels of a layer stay: the readings that `--find` compares."""


def measure(network: str, score: str, sparsity: float, batch: int, seed: int) -> dict[str, Any]:
    """One score on one network."""
    torch.manual_seed(seed)
    found = find_network(network)
    model, inputs = found.build().eval(), (torch.randn(found.shape),)
    wall, cpu = time.perf_counter(), time.process_time()
    module = capture(model, inputs)
    captured = time.perf_counter() - wall
    batches = synthetic_batches(model, inputs, size=batch, seed=seed) if SCORES[score].needs_data else ()
    result = Reconvene(score=score).prune(module, Evidence(inputs, batches, seed=seed), Aim(sparsity))
    assert result.sensitivity is not None
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    sizes = result.compaction
    return {
        "network": network,
        "score": score,
        "rounds": SCORES[score].rounds,
        "sparsity": sparsity,
        "seconds": wall,
        "cpu_seconds": cpu,
        "capture_seconds": captured,
        "phases": dict(sizes.seconds),
        "parameters_before": sizes.before.parameters,
        "parameters_after": sizes.after.parameters,
        "macs_before": sizes.before.macs,
        "macs_after": sizes.after.macs,
        "resilient": len(result.sensitivity.resilient),
        "compared": len(result.sensitivity.layers),
        "largest_difference": sizes.certificate.max_relative,
    }


def first_capture() -> float:
    """Seconds of a process's first capture, in which torch imports what it needs for that. No row counts them."""
    started = time.perf_counter()
    capture(torch.nn.Linear(2, 2).eval(), (torch.randn(1, 2),))
    return time.perf_counter() - started


def find(keep: str, network: str, width: float, ratio: float, threads: int, seed: int) -> dict[str, Any]:
    """The smallest p whose network has `ratio` times fewer parameters, and what that network costs."""
    torch.manual_seed(seed)
    built = find_network(network) if width == 1 else network_for(network, 10, 32, width)
    inputs = (torch.randn(built.shape),)
    module = capture(built.build().eval(), inputs)
    method, widths = RULES[keep]
    best: tuple[float, Pruned] | None = None
    low, high = 0, _STEP - 1
    while low < high:
        middle = (low + high) // 2
        result = method.prune(module, Evidence(inputs, seed=seed), Aim(middle / _STEP, widths))
        enough = result.compaction.before.parameters >= ratio * result.compaction.after.parameters
        low, high = (low, middle) if enough else (middle + 1, high)
        best = (middle / _STEP, result) if enough else best
    if best is None:
        sys.exit(f"{network} does not get {ratio} times smaller at any p")
    sparsity, result = best
    variants = {"dense": (module, inputs), "reconvene": (result.compaction.module, inputs)}
    profiles = profile(variants, threads=threads)
    engines = ("eager", "reconvene")
    latencies = {
        (row.engine, row.variant): row.median_ms for row in latency(variants, threads=threads, engines=engines)
    }
    return {
        "network": network,
        "width": width,
        "keep": keep,
        "wanted": ratio,
        "sparsity": sparsity,
        **{
            name: {
                "parameters": entry.size.parameters,
                "macs": entry.size.macs,
                "bytes": entry.size.bytes,
                "peak_bytes": entry.peak_bytes,
                "eager_median_ms": latencies["eager", name],
                "compiled_median_ms": latencies["reconvene", name],
            }
            for name, entry in profiles.items()
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| network | score | rounds | seconds | CPU seconds | of it score | parameters before | after | times smaller |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        before, after = row["parameters_before"], row["parameters_after"]
        lines.append(
            f"| {row['network']} | {row['score']} | {row['rounds']} | {row['seconds']:.1f} | {row['cpu_seconds']:.1f} |"
            f" {row['phases']['score']:.1f} | {before:,} | {after:,} | {before / after:.2f} |"
        )
    return "\n".join(lines)


def sizes(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of rows that ``--find`` made: dense and pruned, a table a network."""
    parts = []
    for row in rows:
        lines = [
            f"{row['network']}, keeping {row.get('keep', 'channels')}, p = {row['sparsity']:g}\n",
            "| | dense | pruned | times less |",
            "|---|---|---|---|",
        ]
        before, after = row["dense"], row["reconvene"]
        lines += [
            f"| {name} | {before[name]:,.10g} | {after[name]:,.10g} | {before[name] / after[name]:.2f} |"
            for name in ("parameters", "macs", "bytes", "peak_bytes", "eager_median_ms", "compiled_median_ms")
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["vgg16-cifar", "resnet50-cifar", "resnet50-imagenet"])
    parser.add_argument("--scores", nargs="+", default=list(SCORES), choices=list(SCORES))
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=20, help="synthetic examples for SNIP and GraSP")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=float, default=1.0, help="with --find")
    parser.add_argument("--find", type=float, metavar="RATIO")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    setting = environment() | {
        "threads": options.threads,
        "dtype": "float32",
        "seed": options.seed,
        "batch": options.batch,
        "load_average": round(os.getloadavg()[0], 1),
        "first_capture_seconds": round(first_capture(), 2),
    }
    if options.find:
        rows = [
            find(keep, network, options.width, options.find, options.threads, options.seed)
            for network in options.networks
            for keep in RULES
        ]
        print(json.dumps(rows, indent=1))
    else:
        rows = []
        for network in options.networks:
            for score in options.scores:
                rows.append(measure(network, score, options.sparsity, options.batch, options.seed))
                print(f"{network} {score}: {rows[-1]['seconds']:.1f} s", file=sys.stderr)
        print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
