"""Kills a training at random moments and compares the weights it ends with to those of an undisturbed one.

    python benchmarks/training_kills.py [--kills 20] [--json docs/results/training_kills.json]

Every run is ``reconvene train`` in a process of its own; it is killed with SIGKILL, which no program can notice. Images
are random: what is learnt does not matter here.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

CHECKPOINT = "checkpoint.safetensors"
_PATIENCE = 600.0


def write_images(folder: Path, count: int = 64, seed: int = 0) -> None:
    """CIFAR-10's official binary files with random images, `count` in each of the six."""
    target = folder / "cifar-10-batches-bin"
    target.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for name in (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"):
        records = generator.integers(0, 256, (count, 3073), dtype=np.uint8)
        records[:, 0] = generator.integers(0, 10, count)
        (target / name).write_bytes(records.tobytes())


def command(data: Path, run: Path, epochs: int) -> list[str]:
    """A quarter of ResNet-20 on batches of 16, with a checkpoint every second step."""
    line = f"train resnet20 --width 0.25 --data {data} --preset smoke --threads 1 --checkpoint-every 2 -o {run} --json"
    settings = {"epochs": epochs, "batch": 16, "train_images": 0, "test_images": 0}
    changes = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "reconvene", *line.split(), *changes]


@dataclass(frozen=True)
class Outcome:
    """What became of a training that was killed again and again."""

    kills: int
    """How many times it was killed before its end."""
    waits: tuple[int, ...]
    """Checkpoints seen before each kill."""


def killed_training(line: list[str], run: Path, kills: int, seed: int, most: int = 4) -> Outcome:
    """Runs `line`, kills it a random moment after a random number of checkpoints, at most `kills` times, then lets it end."""
    chance = random.Random(seed)
    waits = []
    for _ in range(kills):
        wanted = chance.randint(0, most)
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if _seen(process, run / CHECKPOINT, wanted):
            time.sleep(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            waits.append(wanted)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return Outcome(len(waits), tuple(waits))


def _seen(process: subprocess.Popen[bytes], path: Path, wanted: int) -> bool:
    """Waits until the file has been replaced `wanted` times; False if the process ended first."""
    last, count, until = _stamp(path), 0, time.monotonic() + _PATIENCE
    while count < wanted:
        if process.poll() is not None or time.monotonic() > until:
            return False
        now = _stamp(path)
        if now != last:
            last, count = now, count + 1
        time.sleep(0.002)
    return True


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_ino * 10**20 + path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def same_state(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same bits: weights, statistics and momenta."""
    one, two = load_file(first / CHECKPOINT), load_file(second / CHECKPOINT)
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "data")
        subprocess.run(
            command(folder / "data", folder / "whole", options.epochs), check=True, stdout=subprocess.DEVNULL
        )
        line = command(folder / "data", folder / "killed", options.epochs)
        outcome = killed_training(line, folder / "killed", options.kills, options.seed)
        same = same_state(folder / "whole", folder / "killed")
    print(f"killed {outcome.kills} times; the same weights, statistics and momenta to the last bit: {same}")
    if options.json:
        record = {
            "torch": torch.__version__, "threads": 1, "dtype": "float32", "seed": options.seed, "epochs": options.epochs,
            "kills": outcome.kills, "checkpoints_before_each": list(outcome.waits), "same": same,
        }  # fmt: skip
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
