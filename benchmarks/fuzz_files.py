"""Files that are changed from a seed, of every kind that this package reads, each read in a process of its own.

    python benchmarks/fuzz_files.py [--inputs 2400] [--seed 0] [--seconds 1800] [--jobs 1]
        [--only KIND ...] [--json docs/results/fuzz_files.json] [--keep FOLDER]

Input i of a seed is always the same. A process may take 20 seconds and 4 GiB beyond what it begins with. What must not be: a
traceback, an internal error (exit code 70), a process that hangs, is killed, or writes to stderr more than its one line, and
code of the file that was run. Such an input is printed, and with --keep put into that folder. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from attacks.file_kinds import Kind, kinds

from reconvene.driver.cli.ending import explained
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text

_SECONDS = 20.0
_ROOM = 4 << 30
"""Bytes that a process may take beyond what it has when it begins."""
_NO_MEMORY = "there is not enough memory here"
_TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Seen:
    """What came of the inputs."""

    read: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    peak_mib: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0

    def add(self, more: dict[str, Any]) -> None:
        """What came of others."""
        for name in ("read", "refused", "faults"):
            getattr(self, name).update(more[name])
        for kind, peak in more["peak_mib"].items():
            self.peak_mib[kind] = max(peak, self.peak_mib.get(kind, 0))
        self.slowest = max(self.slowest, more["slowest"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=1800, help="after which no further input is tried")
    parser.add_argument("--jobs", type=int, default=1, help="processes that try inputs")
    parser.add_argument("--only", nargs="+", help="kinds of files")
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument("--keep", type=Path, help="folder for what went wrong")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        # Damaged entries are for nobody else.
        os.environ["RECONVENE_CACHE"] = f"{temporary}/cache"
        record = tried(Path(temporary), options)
    print(json.dumps(record, indent=1))
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    return 1 if record["faults"] else 0


def tried(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    marker = folder / "MARKER"
    made = folder / "made"
    made.mkdir()
    known = list(kinds(made, f"__import__('pathlib').Path({str(marker)!r}).touch()"))
    for kind in known:
        _check(kind, folder)
    shares = [kind for kind in known for _ in range(kind.weight) if not options.only or kind.name in options.only]
    random.Random(options.seed).shuffle(shares)
    began = time.perf_counter()
    workers = [_started(job, shares, folder, marker, options) for job in range(options.jobs)]
    seen = Seen()
    for worker, told in workers:
        os.waitpid(worker, 0)
        seen.add(json.loads(told.read_text()))
    return {
        "setting": {**environment(), "seed": options.seed, "seconds": _SECONDS, "room_mib": _ROOM >> 20},
        "inputs": seen.read.total() + seen.refused.total() + seen.faults.total(),
        "kinds": {kind.name: {"read": seen.read[kind.name], "refused": seen.refused[kind.name]} for kind in known},
        "faults": dict(seen.faults),
        "markers": int(marker.exists()),
        "peak_mib": max(seen.peak_mib.values(), default=0),
        "peak_mib_of": dict(sorted(seen.peak_mib.items(), key=lambda entry: -entry[1])[:5]),
        "slowest_seconds": round(seen.slowest, 2),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _started(job: int, shares: list[Kind], folder: Path, marker: Path, options: argparse.Namespace) -> tuple[int, Path]:
    """A process that takes every so many inputs, and the file that it leaves what came of them in."""
    own = folder / f"job{job}"
    own.mkdir()
    worker = os.fork()
    if worker:
        return worker, own / "seen"
    seen, began = Seen(), time.perf_counter()
    try:
        for number in range(options.first + job, options.first + options.inputs, options.jobs):
            if time.perf_counter() - began > options.seconds:
                break
            one(number, shares[number % len(shares)], own, marker, seen, options)
        (own / "seen").write_text(json.dumps(vars(seen)))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def one(number: int, kind: Kind, folder: Path, marker: Path, seen: Seen, options: argparse.Namespace) -> None:
    content = kind.mutation(random.Random(f"{options.seed} {number}"), kind.files[kind.changed])
    place = _written(kind, folder, content)
    began = time.perf_counter()
    code, said, peak = read_apart(kind, place)
    seen.slowest = max(seen.slowest, time.perf_counter() - began)
    seen.peak_mib[kind.name] = max(seen.peak_mib.get(kind.name, 0), peak >> 10)
    fault = judged(code, said, marker)
    if fault is None:
        (seen.refused if code else seen.read)[kind.name] += 1
        return
    seen.faults[fault] += 1
    print(f"input {number} ({kind.name}): {fault}: {said[-500:]}", file=sys.stderr)
    marker.unlink(missing_ok=True)
    if options.keep:
        shutil.copytree(place, options.keep / str(number), dirs_exist_ok=True)


def judged(code: int, said: str, marker: Path) -> str | None:
    """What went wrong, if something did."""
    if marker.exists():
        return "code of the file was run"
    if _TRACEBACK in said:
        return "traceback"
    if code not in (0, 1, 2):
        return {70: "internal error", -signal.SIGKILL: "hang"}.get(code, f"ended with {code}")
    if _NO_MEMORY in said:
        return "memory"
    if code and said.count("\n") != 1:
        return "not one line"
    return None


def read_apart(kind: Kind, place: Path) -> tuple[int, str, int]:
    """The exit code of a process that reads, negative for signals; what it wrote to stderr; and its memory in KiB."""
    told = place.parent / "stderr"
    child = os.fork()
    if not child:
        _read(kind, place, told)
    deadline = time.monotonic() + _SECONDS
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(status), told.read_text(errors="replace"), usage.ru_maxrss


def _read(kind: Kind, place: Path, told: Path) -> None:
    """In the process of its own; never returns."""
    code = 70
    try:
        handle = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(handle, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.chdir(place)
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _ROOM, now + _ROOM))
        try:
            found = kind.read(place)
            code = found if isinstance(found, int) else 0
        except Exception as error:
            code = explained(error)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _written(kind: Kind, folder: Path, content: bytes) -> Path:
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    for name, whole in {**kind.files, kind.changed: content}.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole)
    return place


def _check(kind: Kind, folder: Path) -> None:
    """A kind whose file cannot be read when it is in order would tell nothing. Here, so that what is imported is for all."""
    place = _written(kind, folder, kind.files[kind.changed])
    with redirect_stdout(io.StringIO()):
        found = kind.read(place)
        if isinstance(found, int) and found:
            raise SystemExit(f"the kind '{kind.name}' cannot be read as it is")


if __name__ == "__main__":
    sys.exit(main())
