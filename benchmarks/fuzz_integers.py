"""Random quantised graphs: compiled code against the reference on integers, bit by bit.

    python benchmarks/fuzz_integers.py --graphs 1000 [--seed 0] [--codes uint8] [--json docs/results/fuzz_integers.json]
    python benchmarks/fuzz_integers.py --graphs 20 --target cortex-m4

Graph i of a seed is always the same. Each is compiled for this machine, or for another, whose program runs under QEMU, and runs
on three inputs, one of them ten times as large, so that codes saturate. With ``--codes uint8`` codes are moved up by 128, as on
machines with products of unsigned by signed bytes. With --json the run goes on where it was stopped; --again checks graphs anew
whose outcome was another than exact.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from fuzzing.quantised import RandomNetwork

from reconvene.backends.built import Built
from reconvene.backends.bundles.execution import bundle_emulator, run_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.backends.importing.importer import import_module
from reconvene.backends.kernels.tiles import Machine
from reconvene.frontend.base.files import write_text

SAVE_EVERY = 10


def main() -> int:
    options = _options()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if options.codes != "target":
        Machine.codes = property(lambda machine: options.codes)  # type: ignore[assignment,method-assign]
    record = _saved(options)
    failures: list[dict[str, Any]] = record["failures"]
    if options.again:
        outcomes = [{"seed": one["seed"], "outcome": checked(one["seed"], options.target)} for one in failures]
        record["failures"] = failures = [one for one in outcomes if one["outcome"] != "exact"]
    began = time.perf_counter() - record["seconds"]
    for number in range(record["graphs"], options.graphs):
        seed = options.seed * 1_000_000 + number
        outcome = checked(seed, options.target)
        if outcome != "exact":
            failures.append({"seed": seed, "outcome": outcome})
            print(f"graph {seed}: {outcome}", flush=True)
        record |= {"graphs": number + 1, "seconds": time.perf_counter() - began}
        if number % SAVE_EVERY == 0:
            _save(options, record)
    _save(options, record)
    print(f"{record['graphs']} graphs, {len(failures)} not exact, {record['seconds']:.0f} s")
    return int(bool(failures))


def _saved(options: argparse.Namespace) -> dict[str, Any]:
    """The record of an earlier run of the same graphs, or an empty one."""
    if options.json and options.json.exists():
        record: dict[str, Any] = json.loads(options.json.read_text(encoding="utf-8"))
        if record["environment"] == environment(options):
            return record
        raise SystemExit(
            f"'{options.json}' is of other graphs, versions or another machine; remove it, or name another file"
        )
    return {"graphs": 0, "failures": [], "seconds": 0.0, "environment": environment(options)}


def _save(options: argparse.Namespace, record: dict[str, Any]) -> None:
    if options.json:
        write_text(options.json, json.dumps(record, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--graphs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default="host")
    parser.add_argument("--codes", choices=("target", "int8", "uint8"), default="target")
    parser.add_argument("--again", action="store_true", help="check what was not exact once more")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def checked(seed: int, target: str = "host") -> str:
    """``exact``, or what is wrong with the graph of a seed."""
    network = RandomNetwork(seed).eval()
    given = network.example(seed)
    try:
        program = import_module(network, (given,)).integers
        built = compile(network, (given,), target, dtype="int8", check=False)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    if program is None or not program.layers:
        return "nothing is computed on codes"
    inputs = (given, network.example(seed + 1, 10.0), torch.zeros_like(given))
    for x, found in zip(inputs, _results(built, inputs), strict=True):
        with torch.no_grad():
            wanted = program.module(x)
        if program.floats:
            return f"in float32: {', '.join(program.floats)}"
        for place, (mine, theirs) in enumerate(zip(found, wanted, strict=True)):
            if not torch.equal(mine, theirs):
                return f"output {place}: {int((mine != theirs).sum())} of {mine.numel()} differ"
    return "exact"


def _results(built: Built, inputs: Sequence[torch.Tensor]) -> Iterator[Sequence[torch.Tensor]]:
    """The outputs for each input, here or under QEMU."""
    if built.target.runs_here:
        yield from map(built.run, inputs)
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_bundle(built.export(Path(folder) / "bundle"))
        for x in inputs:
            yield run_bundle(bundle, (x,), bundle_emulator(bundle))


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """What the outcomes depend on."""
    names = ("torch", "apache-tvm", "apache-tvm-ffi")
    return {
        "seed": options.seed,
        "codes": options.codes,
        **({} if options.target == "host" else {"target": options.target}),
        "versions": {name: metadata.version(name) for name in names},
        "machine": platform.machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
