"""The same networks through Torch-Pruning and through reconvene, with the same channels gone.

    pip install -e '.[peers]'
    python benchmarks/peers.py [--only resnet18 ...] [--json docs/results/peers.json] [--markdown docs/results/peers.md]

Torch-Pruning decides: half of the channels of each of its groups by group magnitude, the classifier left alone, as its
README shows. What it removes is recorded group by group and written down as masks on the original network. Both results
are then compared with that network, masked and run eagerly in float64: M1 zeroes the filters that make a removed channel
and leaves biases and normalisation alone; M2 zeroes all of its affine parameters. Where Torch-Pruning does not get
through, what it offers for that kind of network is tried (`RECIPES`); where nothing helps, reconvene removes half of the
channels of each of its own groups at random. Every attempt runs in a process of its own, with limits; finished rows are
kept in the JSON file, so that a run that was stopped goes on where it was. All seconds are processor time of one thread,
which other programs on the machine change little.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pruning_peers.measuring import MEMORY, SEED, measure_ours, measure_peer
from pruning_peers.page import is_exact, page
from pruning_peers.recipes import RECIPES
from zoo import SUBSET

from reconvene.frontend.base.files import write_text

LISTED_AS_FAILING = (
    "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 swin_t swin_s swin_b".split()
)
"""What Torch-Pruning's own table of torchvision lists as failing for structural reasons."""

NETWORKS = [*(name for name in SUBSET if name not in LISTED_AS_FAILING), *LISTED_AS_FAILING]


def in_own_process(arguments: Sequence[str], limit: int) -> dict[str, Any]:
    """What this program prints when it is called with `arguments` and the limit."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments, "--limit", str(limit)], capture_output=True, text=True, check=False
    )
    if done.returncode == -signal.SIGXCPU:
        return {"outcome": "does not finish", "error": f"stopped after {limit} s of processor time"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        return {"outcome": "raises", "error": last}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def limit_use(seconds: int) -> None:
    """From now on this process may use as much processor time, then SIGXCPU ends it; and `MEMORY`, then it raises."""
    for kind, most in ((resource.RLIMIT_CPU, int(time.process_time()) + seconds), (resource.RLIMIT_AS, MEMORY << 30)):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most, hard))


def run_one(name: str, limit: int) -> dict[str, Any]:
    """A row: Torch-Pruning's attempts until one works, then ours with the same masks."""
    attempts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "masks.safetensors"
        for recipe in RECIPES:
            if recipe.fits(name) and (not attempts or attempts[-1]["outcome"] != "works"):
                found = in_own_process(["--attempt", name, recipe.name, str(path)], limit)
                attempts.append({"recipe": recipe.name} | found)
        ours = in_own_process(["--ours", name, *([str(path)] if path.exists() else [])], limit)
    return {"network": name, "attempts": attempts, "ours": ours}


def setting() -> dict[str, Any]:
    """The conditions of a run."""
    versions = {name: metadata.version(name) for name in ("torch-pruning", "torchvision", "timm")}
    return versions | {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": 1,
        "dtype": "float64",
        "seed": SEED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=NETWORKS, help="names as in benchmarks/zoo.py")
    parser.add_argument("--json", type=Path, help="rows already in it are not run again")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--limit", type=int, default=300, help="processor seconds for an attempt of Torch-Pruning")
    parser.add_argument("--attempt", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ours", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("torch_pruning") is None:
        sys.exit("Torch-Pruning is not installed; install it with: pip install -e '.[peers]'")
    warnings.simplefilter("ignore")
    if options.attempt:
        name, chosen, path = options.attempt
        recipe = next(recipe for recipe in RECIPES if recipe.name == chosen)
        limit_use(options.limit)
        print(json.dumps(measure_peer(name, recipe, Path(path))))
        return
    if options.ours:
        print(json.dumps(measure_ours(options.ours[0], Path(options.ours[1]) if options.ours[1:] else None)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if options.json and options.json.exists():
        rows = {row["network"]: row for row in json.loads(options.json.read_text(encoding="utf-8"))["rows"]}
    for name in options.only:
        if name not in rows:
            rows[name] = run_one(name, options.limit)
            print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
        if options.json:
            write_text(options.json, json.dumps({"setting": setting(), "rows": list(rows.values())}, indent=1) + "\n")
    text = page({"setting": setting(), "rows": [rows[name] for name in options.only]})
    print(text)
    if options.markdown:
        write_text(options.markdown, text)
    bad = [name for name in options.only if not is_exact(rows[name])]
    if bad:
        sys.exit(f"ours is not exact: {', '.join(bad)}")


if __name__ == "__main__":
    main()
