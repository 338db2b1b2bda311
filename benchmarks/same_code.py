"""Whether two checkouts compile networks to the same code, and how long that takes in each: for changes that only re-arrange.

    python benchmarks/same_code.py OTHER [--networks resnet18 ...] [--targets host rpi4] [--pairs 7] [--json out.json]

OTHER is the folder of another checkout with its environment in .venv. Each network is compiled from the same seeded weights by
both, without checks or caches, and exported without a runtime; the SHA-256 is that of its sources, objects and weights. Times
are medians of a process each, first one checkout, then the other, by turns, so that noise falls on both: one thread, float32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parents[1]
CODE = {".c", ".h", ".o", ".a", ".bin"}


def compiled(name: str, target: str, runs: int) -> dict[str, Any]:
    """The digest of a network's code by this checkout, and medians in milliseconds of compiling and, here, of running."""
    # The networks' definitions are those of the checkout: whoever changes them sees other digests.
    sys.path.insert(0, str(Path.cwd() / "benchmarks"))
    import torch
    from models import build, image_size

    import reconvene

    network, size = build(name, 0), image_size(name, False)
    images = torch.zeros(1, 3, size, size)
    start = time.perf_counter()
    built = reconvene.compile(network, (images,), target, check=False, cache=False)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(built.export(Path(folder) / "bundle", runtime="none"))
        digest = hashlib.sha256()
        for path in sorted(path for path in bundle.iterdir() if path.suffix in CODE):
            digest.update(path.name.encode() + path.read_bytes())
    times = []
    for _ in range(runs if target == "host" else 0):
        begin = time.perf_counter()
        built.run(images)
        times.append(time.perf_counter() - begin)
    return {"digest": digest.hexdigest(), "compile": seconds, "run": 1e3 * median(times[3:]) if times[3:] else None}


def asked(checkout: Path, name: str, target: str, runs: int) -> dict[str, Any]:
    """`compiled`, in a process of a checkout's own."""
    command = [checkout / ".venv" / "bin" / "python", Path(__file__), "--one", name, target, str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {checkout} cannot compile {name} for {target}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(other: Path, name: str, target: str, pairs: int, runs: int) -> dict[str, Any]:
    """A row of the table: whether the code is the same, and medians over pairs of this checkout's times by the other's."""
    mine, theirs = [], []
    for turn in range(pairs):
        for checkout in (HERE, other) if turn % 2 else (other, HERE):
            (mine if checkout == HERE else theirs).append(asked(checkout, name, target, runs))
    digests = {found["digest"] for found in (*mine, *theirs)}
    ratios = {
        what: median(a[what] / b[what] for a, b in zip(mine, theirs, strict=True)) if mine[0][what] else None
        for what in ("compile", "run")
    }
    return {
        "network": name,
        "target": target,
        "same": len(digests) == 1,
        "ratios": ratios,
        "mine": mine,
        "other": theirs,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout")
    parser.add_argument("--networks", nargs="+", default=["vgg16_cifar", "resnet18", "mobilenet_v2"])
    parser.add_argument("--targets", nargs="+", default=["host", "rpi4"])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--runs", type=int, default=60, help="of each process, on the host")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, target, runs = options.one
        print(json.dumps(compiled(name, target, int(runs))))
        return 0
    if options.other is None or not (options.other / ".venv").is_dir():
        parser.error("OTHER must be the folder of a checkout whose environment is in .venv (make env)")
    if options.other.resolve() == HERE:
        parser.error("OTHER must be another checkout than this one")
    rows = []
    print(f"{platform.processor() or platform.machine()}, medians of {options.pairs} pairs, this checkout by the other")
    for name in options.networks:
        for target in options.targets:
            row = compare(options.other.resolve(), name, target, options.pairs, options.runs)
            shown = ", ".join(f"{what} {ratio:.3f}" for what, ratio in row["ratios"].items() if ratio is not None)
            print(f"{name} {target}: {'the same code' if row['same'] else 'OTHER CODE'}; {shown}", flush=True)
            rows.append(row)
    if options.json is not None:
        options.json.write_text(json.dumps({"python": platform.python_version(), "rows": rows}, indent=1) + "\n")
    return int(any(not row["same"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
