"""Edits bundles and portfolios, and counts what comes of it: refused in one line, or loaded with the right outputs.

    python benchmarks/attack_bundles.py docs/results/attack_bundles.json [--inputs 2000] [--seed 0] [--seconds 300]

Three in ten edits are of a manifest as it lies there, three in ten of one whose checksums were all made anew, two of a
portfolio's manifest (its checksums made anew in half of them), and two of other files: bits of code, weights and checksums,
links, pipes, devices, and libraries that nobody listed, there or in folders. What is loaded runs, and its outputs are compared
bit for bit. Another process does it, so that what ended it would be seen.

Exit code 1 if an output was wrong, an error was no InputError or more than a line, one took longer than --patience seconds, or
the process ended.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attacks.edits import edited_bytes, edited_json, edited_text
from torch import nn

from reconvene.backends.built import load_bundle
from reconvene.backends.bundles.read import open_bundle
from reconvene.backends.compile import compile
from reconvene.driver.portfolio.manifest import Portfolio, Variant, file_sums, listed_bundle, open_portfolio
from reconvene.driver.portfolio.manifest import write_manifest as write_portfolio
from reconvene.frontend.base.errors import InputError
from reconvene.frontend.base.files import sha256, sha256_of

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Layers, two of one shape, and a buffer that every call writes: weights, an arena and state."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(channels)
        self.first, self.second = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.third = nn.Conv2d(channels, channels, 1)
        self.register_buffer("calls", torch.ones(1))

    def forward(self, image: torch.Tensor, offset: torch.Tensor) -> dict[str, torch.Tensor]:
        self.calls.add_(1)
        found = self.third(torch.relu(self.second(torch.relu(self.first(image + offset)))))
        return {"sum": found.sum(1), "scaled": found.sum(1) * self.calls}


def made(folder: Path) -> Portfolio:
    """A portfolio of two variants, compiled for this machine."""
    variants = []
    for name, channels in (("large", 24), ("small", 12)):
        place = folder / "variants" / name / "host"
        place.parent.mkdir(parents=True)
        compile(Counting(channels).eval(), (X, X)).export(place, certificate={"max_relative": 0.0})
        sums = file_sums(folder, name)
        variants.append(Variant(name, None, channels, channels, 4 * channels, channels, {}, 1, sums))
    bundle = open_bundle(folder / "variants" / "large" / "host")
    portfolio = Portfolio(folder, "attacked", bundle.inputs, bundle.outputs, tuple(variants))
    write_portfolio(portfolio, folder)
    return portfolio


def outputs(folder: Path) -> list[torch.Tensor]:
    built = load_bundle(folder)
    # Two calls: what is kept counts.
    return [tensor.clone() for _ in range(2) for tensor in built.run_tensors((X, 2 * X))]


def manifest(bundle: Path, source: random.Random) -> str:
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    text = edited_text(values, source) if source.random() < 0.3 else json.dumps(edited_json(values, source)).encode()
    path.write_bytes(text)
    return "manifest"


def resummed(bundle: Path, source: random.Random) -> str:
    manifest(bundle, source)
    sum_up(bundle)
    return "manifest, checksums made anew"


def sum_up(bundle: Path) -> None:
    """Makes the checksums of all that the manifest lists anew, in both places."""
    path = bundle / "manifest.json"
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError, OSError, RecursionError):
        values = json.loads(path.read_text())
        for name, entry in values["files"].items():
            if (bundle / name).is_file():
                entry.update(bytes=(bundle / name).stat().st_size, sha256=sha256(bundle / name))
        path.write_text(json.dumps(values))
    names = sorted(entry.name for entry in bundle.iterdir() if entry.name != "SHA256SUMS" and entry.is_file())
    (bundle / "SHA256SUMS").write_text("".join(f"{sha256(bundle / name)}  {name}\n" for name in names))


def other_file(bundle: Path, source: random.Random) -> str:
    names = sorted(entry.name for entry in bundle.iterdir() if entry.name not in ("README.md", "manifest.json"))
    path = bundle / source.choice([name for name in names if name.startswith(("model", "weights", "state", "SHA"))])
    kind = source.choice(("bits", "bits", "cut", "pipe", "device", "link", "gone", "exchanged", "unlisted", "folder"))
    if kind == "bits":
        path.write_bytes(edited_bytes(path.read_bytes(), source))
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])
    elif kind == "exchanged":
        other = bundle / source.choice([name for name in names if name != path.name])
        both = path.read_bytes(), other.read_bytes()
        path.write_bytes(both[1]), other.write_bytes(both[0])
    elif kind == "unlisted":
        (bundle / source.choice(("libm.so.6", "libtvm_ffi.so", "x.so"))).write_bytes(b"\x7fELF")
    elif kind == "folder":
        place = bundle / source.choice(("glibc-hwcaps/x86-64-v2", "tls/x86_64", "x86_64", "a"))
        place.mkdir(parents=True)
        (place / "libtvm_ffi.so").write_bytes(b"\x7fELF")
    else:
        path.unlink()
        goals = {"device": "/dev/zero", "link": f"../../{source.choice(('large', 'small'))}/host/{path.name}"}
        if kind == "pipe":
            os.mkfifo(path)
        elif kind in goals:
            path.symlink_to(goals[kind])
    if source.random() < 0.3 and kind in ("bits", "cut", "exchanged") and not path.name.startswith("model"):
        sum_up(bundle)  # Code that was changed and summed up anew is another program, which a signature is against.
        return "other files, checksums made anew"
    return "other files"


def portfolio_manifest(folder: Path, source: random.Random) -> str:
    path = folder / "portfolio.json"
    values = json.loads(path.read_text())
    text = edited_text(values, source) if source.random() < 0.3 else json.dumps(edited_json(values, source)).encode()
    path.write_bytes(text)
    return "portfolio"


EDITS: tuple[tuple[float, Callable[[Path, random.Random], str]], ...] = (
    (0.3, manifest),
    (0.3, resummed),
    (0.2, other_file),
    (0.2, portfolio_manifest),
)


class Late(Exception):
    """A try took longer than it may."""


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def attempt(
    original: Path, work: Path, number: int, seed: int, limit: float, right: dict[str, Any]
) -> tuple[str, str, str]:
    """The kind of one edit, what came of it, and what was said."""
    source = random.Random(f"{seed}.{number}")
    folder = work / "portfolio"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    edit = source.choices([entry for _, entry in EDITS], [share for share, _ in EDITS])[0]
    name = source.choice(("large", "small"))
    bundle = folder / "variants" / name / "host"
    kind = edit(folder if edit is portfolio_manifest else bundle, source)
    try:
        with patience(limit):
            if edit is portfolio_manifest:
                portfolio = open_portfolio(folder)
                found = {v.name: outputs(listed_bundle(portfolio, v, "host")) for v in portfolio.variants}
            else:
                found = {name: outputs(bundle)}
    except InputError as error:
        line = str(error)
        plain = line.isprintable() and len(line) < 1000
        return kind, "refused" if plain else "refused in more than a line", line
    except Late:
        return kind, "hung", ""
    except BaseException as error:
        return kind, "fell", f"{type(error).__name__}: {error}"
    same = all(name in right and all(map(torch.equal, got, right[name])) for name, got in found.items())
    return kind, "right" if same else "wrong", ""


def tries(original: Path, work: Path, options: argparse.Namespace, pipe: Any, first: int) -> None:
    torch.set_num_threads(1)
    right = {name: outputs(original / "variants" / name / "host") for name in ("large", "small")}
    end = time.monotonic() + options.seconds
    for number in range(first, options.inputs):
        if time.monotonic() > end:
            break
        pipe.send((number, *attempt(original, work, number, options.seed, options.patience, right)))
    pipe.send(None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300, help="begin nothing new after that time")
    parser.add_argument("--patience", type=float, default=20, help="seconds that one may take")
    options = parser.parse_args()
    kinds: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    faults, first, start = [], 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        original = Path(temporary) / "original"
        original.mkdir()
        made(original)
        context = multiprocessing.get_context("spawn")
        while first < options.inputs:
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=tries, args=(original, Path(temporary), options, there, first))
            process.start()
            there.close()
            try:
                while (found := here.recv()) is not None:
                    number, kind, outcome, said = found
                    first = number + 1
                    kinds[kind][outcome] += 1
                    if outcome not in ("refused", "right"):
                        faults.append({"number": number, "kind": kind, "outcome": outcome, "said": said[:300]})
                break
            except EOFError:
                kinds["?"]["ended the process"] += 1
                faults.append({"number": first, "outcome": "ended the process"})
                first += 1
            finally:
                process.join()
    outcomes = sum(kinds.values(), collections.Counter())
    data = {
        "inputs": sum(outcomes.values()),
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        "outcomes": {
            name: outcomes[name] for name in ("refused", "right", "wrong", "fell", "hung", "ended the process")
        },
        "kinds": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
        "faults": faults,
        "digest": sha256_of(
            json.dumps({kind: sorted(counts.items()) for kind, counts in sorted(kinds.items())}).encode()
        ),
    }
    options.output.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data["outcomes"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
