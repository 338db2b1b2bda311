"""Memory of a process that runs a compiled network: weights in TVM's pool of constants, and weights as mapped files.

python benchmarks/weights_memory.py [--network vgg16] [--json FILE]

Both ways have the same kernels. The pool is what TVM makes of a module with constants: they are in the library, and are
copied when it is loaded. Bytes are from Linux' smaps_rollup, less what the process had before: resident memory; private
memory, which no other process can share; and proportional memory, where what two processes share counts half in each.
Images are 224x224, one, float32; one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

WAYS = ("pool of constants", "mapped files")
FIELDS = {"resident": ("Rss",), "private": ("Private_Clean", "Private_Dirty"), "proportional": ("Pss",)}


def main() -> int:
    options = _options()
    if options.child:
        return child(*options.child)
    with tempfile.TemporaryDirectory() as folder:
        weights = prepare(options.network, Path(folder))
        rows = [row for way in WAYS for row in measure(way, Path(folder), options.network)]
    print(table(rows))
    if options.json:
        from reconvene.driver.reports.report import environment
        from reconvene.frontend.base.files import write_text

        setting = {**environment(), "network": options.network, "weights_mb": round(weights / 1e6, 1), "threads": 1}
        write_text(options.json, json.dumps({"setting": setting, "rows": rows}, indent=1) + "\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def prepare(network: str, folder: Path) -> int:
    """Writes both ways; the bytes of the weights."""
    import torch
    import tvm
    from models import build, image_size

    import reconvene
    from reconvene.backends.choosing.cost import AnalyticCost
    from reconvene.backends.importing.importer import import_module
    from reconvene.backends.machines.targets import find_target
    from reconvene.backends.pipeline import Asked, scheduled_module

    size = image_size(network, False)
    model, images = build(network), (torch.zeros(1, 3, size, size),)
    built = reconvene.compile(model, images)
    built.export(folder / WAYS[1])
    target = find_target("host")
    llvm = tvm.target.Target(target.llvm())
    imported = import_module(model, images).module
    made = scheduled_module(imported, target.machine, llvm, Asked("auto", AnalyticCost(target.machine)))
    tvm.compile(made.module, target=llvm).export_library(str(folder / "pool.so"))
    return built.memory.weights_bytes


def measure(way: str, folder: Path, network: str) -> list[dict[str, Any]]:
    """One process after loading and after a run, then two at the same time."""
    first = _started(way, folder, network)
    loaded, ran = _told(first), _told(first)
    second = _started(way, folder, network)
    _told(second), _told(second)
    # Both have run and are alive: what they share counts half in each.
    for process in (first, second):
        _asks(process)
    both = [_told(process) for process in (first, second)]
    for process in (first, second):
        _asks(process)
        process.wait()
    together = {name: sum(each[name] for each in both) for name in FIELDS}
    steps = {"loaded": loaded, "after one run": ran, "two processes after one run": together}
    return [{"way": way, "step": step, **found} for step, found in steps.items()]


def _started(way: str, folder: Path, network: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", way, str(folder), network]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _told(process: subprocess.Popen[str]) -> dict[str, int]:
    stream: IO[str] | None = process.stdout
    assert stream is not None
    found: dict[str, int] = json.loads(stream.readline())
    return found


def _asks(process: subprocess.Popen[str]) -> None:
    stream: IO[str] | None = process.stdin
    assert stream is not None
    stream.write("\n")
    stream.flush()


def child(way: str, folder: str, network: str) -> int:
    """Loads, runs, and says each time how much memory it has more than at the beginning."""
    import torch
    import tvm
    from models import image_size
    from tvm import relax

    from reconvene.backends.built import load_bundle
    from reconvene.backends.machines.threads import on_threads

    size = image_size(network, False)
    images = torch.zeros(1, 3, size, size)
    before = memory()

    def say() -> None:
        print(json.dumps({name: value - before[name] for name, value in memory().items()}), flush=True)

    if way == WAYS[0]:
        machine = relax.VirtualMachine(tvm.runtime.load_module(f"{folder}/pool.so"), tvm.cpu())
        say()
        output: Any = on_threads(1, lambda: machine["main"](tvm.runtime.from_dlpack(images)))
    else:
        built = load_bundle(f"{folder}/{way}")
        say()
        output = built.run(images)
    say()
    sys.stdin.readline()
    say()
    sys.stdin.readline()
    del output
    return 0


def memory(process: int | str = "self") -> dict[str, int]:
    """Bytes of a process by the names of `FIELDS`."""
    facts = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]:
        name, _, value = line.partition(":")
        facts[name] = int(value.split()[0]) * 1024
    return {name: sum(facts[part] for part in parts) for name, parts in FIELDS.items()}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In MB of a million bytes."""
    lines = [f"| weights | process | {' MB | '.join(FIELDS)} MB |", f"|---|---|{'---:|' * len(FIELDS)}"]
    lines += [
        f"| {row['way']} | {row['step']} | {' | '.join(f'{row[name] / 1e6:.0f}' for name in FIELDS)} |" for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
