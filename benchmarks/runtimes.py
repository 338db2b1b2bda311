"""Networks without half of their channels in other runtimes: whether they compute the same, their bytes, their milliseconds.

    pip install '.[runtimes]'
    python benchmarks/runtimes.py [--networks resnet18 ...] [--json docs/results/runtimes.json]

Every runtime has a process of its own, so that one that dies is a row that says so; all of a network take turns, on one thread
with one image, in float32. The difference is from the pruned network in PyTorch, over its largest output. Bytes are of the
files that go to a device; ours have the code in them, the others need their runtime there, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from latency import cpu_name
from models import build, image_size
from other_runtimes import RUNTIMES, serve, version_of

import reconvene
from reconvene.backends.measure import timing
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text

RESULTS = """## Pruned networks in other runtimes

Float32, one thread, one image, medians of turns; the difference is from the same network in PyTorch, over its largest output.
MB are of the files that go to a device; ours have the code in them, the others need their runtime there.
"""
"""The section of the results."""
NETWORKS = "mobilenet_v2 resnet18 vgg16_cifar".split()
VARIANTS = {"dense": 0.0, "pruned 50%": 0.5}
LONGEST = 1800.0
"""Seconds that a runtime may take to convert a network, and for a call."""


class Worker:
    """A runtime with a network, in a process of its own."""

    def __init__(self, name: str, module: nn.Module, inputs: tuple[Any, ...], folder: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        folder.mkdir()
        self._process = context.Process(target=serve, args=(theirs, name, module, inputs, folder), daemon=True)
        self._process.start()
        theirs.close()

    def told(self) -> Any:
        """The next thing that it says; what it died of, or that it took too long."""
        try:
            if self._connection.poll(LONGEST):
                return self._connection.recv()
            return {"failed": f"nothing in {LONGEST:.0f} s"}
        except (EOFError, ConnectionError):
            self._process.join()
            return {"failed": f"its process ended with {self._process.exitcode}"}

    def seconds(self) -> Any:
        """Of one call."""
        self._connection.send(True)
        return self.told()

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def measure(
    network: str, variant: str, module: nn.Module, inputs: tuple[torch.Tensor, ...], names: Sequence[str], repeat: int
) -> list[dict[str, Any]]:
    """A row for each runtime."""
    with torch.inference_mode():
        expected = module(*inputs).numpy()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for number, name in enumerate(names):  # One converts at a time.
            worker = Worker(name, module, inputs, Path(temporary, str(number)))
            stack.callback(worker.end)
            told = worker.told()
            row = {"network": network, "variant": variant, "runtime": name, "version": version_of(RUNTIMES[name][1])}
            if "failed" in told:
                row["failed"] = told["failed"]
            else:
                workers[name] = worker
                row["difference"] = float(np.abs(told["output"] - expected).max() / np.abs(expected).max())
                row["bytes"] = told["bytes"]
            rows.append(row)
        for row, found in zip(rows, timed(workers, [row["runtime"] for row in rows], repeat), strict=True):
            row.update(found)
    return rows


def timed(workers: Mapping[str, Worker], names: Sequence[str], repeat: int) -> list[dict[str, Any]]:
    """Times of each of `names` in turns, after three calls that do not count; nothing for those without a worker."""
    samples: dict[str, list[float]] = {name: [] for name in workers}
    failures: dict[str, str] = {}
    for turn in range(repeat + 3):
        for name, worker in workers.items():
            told = worker.seconds() if name not in failures else None
            if isinstance(told, dict):
                failures[name] = told["failed"]
            elif told is not None and turn >= 3:
                samples[name].append(1e3 * told)
    return [
        {"failed": failures[name]} if name in failures
        else asdict(timing(samples[name], 1, 1)) if name in samples
        else {}
        for name in names
    ]  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row a runtime; what failed says how."""
    lines = ["| network | runtime | MB | ms | p10-p90 | difference |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row['network']}, {row['variant']}", f"{row['runtime']} {row['version'] or ''}".strip()]
        if "failed" in row:
            cells += ["-", "-", "-", row["failed"].replace("|", "\\|")]
        else:
            cells += [f"{row['bytes'] / 1e6:.1f}", f"{row['median_ms']:.2f}"]
            cells += [f"{row['p10_ms']:.2f}-{row['p90_ms']:.2f}", f"{row['difference']:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(record: Mapping[str, Any]) -> str:
    """Of the results page."""
    said = "; ".join(f"{name} {value}" for name, value in record["environment"].items())
    return f"{said}\n\n{table(record['rows'])}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for network in options.networks:
        size = image_size(network, False)
        inputs = (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
        for variant, share in VARIANTS.items():
            module = build(network)
            if share:
                module = reconvene.prune(module, inputs, method="random", sparsity=share).module
            found = measure(network, variant, module, inputs, options.runtimes, options.repeat)
            rows += found
            print(table(found) + "\n", flush=True)
    facts = {"processor": cpu_name(), "threads": 1, "dtype": "float32", "batch": 1, "seed": 0, **environment()}
    if options.json:
        write_text(options.json, json.dumps({"environment": facts, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
