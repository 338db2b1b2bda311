"""Seconds that `reconvene.compile` takes: with an empty cache folder, then again, then with other weights; and where they go.

python benchmarks/compile_time.py [--networks resnet50 ...] [--json FILE]

Each is a process of its own; what it imports, builds and captures before is not counted, capture is listed. One image,
float32, untrained weights. The processor's seconds stand beside the clock's, because the machine may have other work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

RUNS = (("empty cache", 0), ("again", 0), ("other weights", 1))
"""What is asked of the same cache folder one after the other, and the seed of the weights."""

STAGES = {
    "import": "_imported",
    "read, choose, emit": "scheduled_module",
    "lower": "lower",
    "compile or find": "build_library",
}
"""By the names of the functions that `reconvene.backends.compile` calls."""


def main() -> int:
    options = _options()
    if options.one:
        name, choose, seed = options.one
        print(json.dumps(measure(name, choose, int(seed))))
        return 0
    rows = []
    for network in options.networks:
        for choose in options.choose:
            rows += _runs(network, choose)
    print(table(rows))
    if options.json:
        from reconvene.driver.reports.report import environment
        from reconvene.frontend.base.files import write_text

        setting = {**environment(), "cores": os.cpu_count(), "dtype": "float32", "batch": 1}
        write_text(options.json, json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=["resnet50", "mobilenet_v2"])
    parser.add_argument("--choose", nargs="+", default=["model"], choices=["model", "time"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def _runs(network: str, choose: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        surroundings = {**os.environ, "RECONVENE_CACHE": folder}
        rows = []
        for run, seed in RUNS:
            command = [sys.executable, __file__, "--one", network, choose, str(seed)]
            done = subprocess.run(command, env=surroundings, check=True, capture_output=True, text=True)
            rows.append({"network": network, "choose": choose, "run": run, **json.loads(done.stdout.splitlines()[-1])})
        return rows


def measure(network: str, choose: str, seed: int) -> dict[str, Any]:
    """Seconds of capture, of `compile` (by the clock, and of the processor), of its stages; the bytes of compiled code."""
    import torch
    from models import build, image_size

    import reconvene
    import reconvene.backends.compile

    size = image_size(network, False)
    model, images = build(network, seed), torch.zeros(1, 3, size, size)
    stages = dict.fromkeys(STAGES, 0.0)
    module: Any = sys.modules["reconvene.backends.compile"]
    for name, function in STAGES.items():
        setattr(module, function, _timed(getattr(module, function), name, stages))
    start = time.perf_counter()
    graph = reconvene.capture(model, (images,))
    captured, processor = time.perf_counter(), time.process_time()
    built = module.compile(graph, (images,), choose=choose)
    end, worked = time.perf_counter(), time.process_time() - processor
    code = sum(map(len, built.artifact.objects.values()))
    whole = {"capture": captured - start, "compile": end - captured, "processor": worked}
    return {**whole, "stages": stages, "code_bytes": code}


def _timed(function: Callable[..., Any], name: str, stages: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            stages[name] += time.perf_counter() - start

    return timed


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each run."""
    head = [
        "network",
        "kernels chosen by",
        "cache",
        "capture, s",
        "compile, s",
        "CPU, s",
        *(f"{name}, s" for name in STAGES),
    ]
    lines = [f"| {' | '.join(head)} |", f"|---|---|---|{'---:|' * (len(head) - 3)}"]
    for row in rows:
        seconds = [row["capture"], row["compile"], row["processor"], *row["stages"].values()]
        cells = [row["network"], row["choose"], row["run"], *(f"{value:.2f}" for value in seconds)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
