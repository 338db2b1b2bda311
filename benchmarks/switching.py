"""Switching between the variants of a portfolio while it is served, beside three ways to do without.

    python benchmarks/switching.py [PORTFOLIO] [--seconds 300] [--requests 10000] [--switches 200]
        [--json docs/results/switching.json]

Without PORTFOLIO a small one is made: VGG-16 for CIFAR-10 at a quarter of its width, with random weights, dense and with a
quarter, half and three quarters of its channels removed.

Load: `reconvene serve` in a process of its own, clients on loopback that send the next request as soon as they have an answer,
and one that switches to another variant at even intervals. Every answer is compared, bit by bit, with what the variant that it
names gives. A gap is the time between two answers in a row, whichever client gets them.

Beside it, without load, the program of bundles (`run --serve`, in C++, without any runtime), which switches by becoming the
other program. And ways to do without switching, each in a process of its own, through the same variants in the same order:

* resident: all variants are loaded, and a switch is an assignment;
* dense: a switch loads the dense program, prunes it to the variant's size, compacts, compiles and warms it, with compiled code
  in reconvene's cache since an earlier round;
* restart: a switch ends the server and starts another one, which answers when it is up.

Memory is what is the process' own (private pages), less what it has after it loaded the smallest variant and unloaded it again;
of the C++ program, all of it while a variant is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from switches.alternatives import CHILDREN
from switches.load import under_load
from switches.tables import table

from reconvene.driver.portfolio.manifest import Portfolio, open_portfolio
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text

PARTS = ("load", "switcher", "program", "resident", "dense", "restart")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portfolio", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=300, help="of load with switches, at least")
    parser.add_argument("--requests", type=int, default=10_000, help="with switches, at least")
    parser.add_argument("--switches", type=int, default=200, help="spread over the seconds")
    parser.add_argument("--still", type=float, default=30, help="seconds of load without switches, for comparison")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="times through all variants, for each alternative")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="of the record; others stay as they are"
    )
    parser.add_argument("--json", type=Path, help="where the record is, written after every part")
    parser.add_argument("--child", choices=(*PARTS[1:], "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.child:
            portfolio = open_portfolio(options.portfolio, files=False)
            print(json.dumps(CHILDREN[options.child](portfolio, options.rounds, options.threads)))
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            portfolio = open_portfolio(options.portfolio or made(Path(temporary)))
            record = measured(portfolio, options)
    except (ReconveneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(record))
    load = record.get("load", {})
    return 1 if load.get("wrong") or load.get("dropped") or load.get("switches_failed") else 0


def made(folder: Path) -> Path:
    """A portfolio of VGG-16 at a quarter of its width, with four degrees of pruning."""
    import reconvene
    from reconvene.driver.portfolio.build import Options, build_portfolio
    from reconvene.driver.portfolio.sources import pruned_sources
    from reconvene.frontend.networks.papers import vgg16_cifar

    torch.manual_seed(0)
    inputs = (torch.randn(1, 3, 32, 32),)
    module = reconvene.capture(vgg16_cifar(width=0.25), inputs)
    sources = pruned_sources(module, inputs, (0, 0.25, 0.5, 0.75), "magnitude")
    return build_portfolio(sources, folder / "vgg16-quarter", "vgg16-quarter", Options(repeat=10)).folder


def measured(portfolio: Portfolio, options: argparse.Namespace) -> dict[str, Any]:
    """The record, with those parts made anew that were asked for."""
    record: dict[str, Any] = {"alternatives": {}}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text(encoding="utf-8"))
    record["setting"] = {
        **environment(),
        "threads": options.threads,
        "clients": options.clients,
        "dtype": portfolio.inputs[0].dtype,
        "batch": portfolio.inputs[0].shape[0] if portfolio.inputs[0].shape else 1,
    }
    record["portfolio"] = portfolio.name
    record["variants"] = [
        {key: getattr(variant, key) for key in ("name", "parameters", "bytes", "macs")}
        for variant in portfolio.variants
    ]
    for part in options.parts:
        print(f"{part} ...", file=sys.stderr)
        if part == "load":
            record["load"] = asyncio.run(under_load(portfolio, options))
        else:
            call = [sys.executable, "-W", "ignore", __file__, str(portfolio.folder), "--child", part]
            chosen = ["--rounds", str(options.rounds), "--threads", str(options.threads)]
            done = subprocess.run([*call, *chosen], stdout=subprocess.PIPE, text=True, check=True)
            record["alternatives"][part] = json.loads(done.stdout.splitlines()[-1])
        if options.json:
            write_text(options.json, json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    sys.exit(main())
