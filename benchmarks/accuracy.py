"""Accuracy of pruned networks over methods, scores, degrees p and seeds: trains a grid, makes tables and plots of it.

    python benchmarks/accuracy.py --bfloat16           # the whole protocol; goes on where it was stopped
    python benchmarks/accuracy.py --bfloat16 --dataset fashion-mnist
    python benchmarks/accuracy.py --bfloat16 --at p weights macs --compute epochs equal
    python benchmarks/accuracy.py --bfloat16 --device cuda --engine side-by-side --workers 6 --minutes 8
    python benchmarks/accuracy.py --latency            # latencies of the runs there are, on a machine without other work
    python benchmarks/accuracy.py --report-only        # tables and plots of the runs there are

The protocol is for two cores and an hour for each data set: a quarter of VGG-16 on 10,000 images of CIFAR-10 for 8 epochs
(the preset ``laptop``), p of 0.5, 0.8, 0.9 and 0.95, three seeds; bfloat16 (autocast) where the processor multiplies it
faster. It compares methods with each other, and says nothing about records.
Methods are compared at equal p, and, by a search over their own p, at equal weights and equal multiply-accumulates (--at);
with equally many epochs, and with equal compute, which is more epochs where they are cheaper (--compute). At equal p SPaI has
as many parameters as Reconvene, and ``uniform`` is sqrt(1 - p) of the channels everywhere.
Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or --data). Results: one line of JSON a run in
docs/results/accuracy-cifar10.jsonl, and from them a page and plots beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from accuracy_page import reports

from reconvene.driver.runs import Environment, Run, timed_again
from reconvene.driver.sweep import ENGINES, grid, read_results, sweep
from reconvene.driver.training.loop import Hardware
from reconvene.driver.training.presets import COMPUTE
from reconvene.driver.verbs.settings import method_settings
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text
from reconvene.frontend.base.progress import track
from reconvene.passes.pruning.placement import PLACES

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
METHODS = ("dense", "upai:magnitude", "upai:synflow", "spai-uniform:magnitude", "reconvene:magnitude")
ABLATIONS = (
    "upai:random", "upai:snip", "upai:grasp", "spai-global:magnitude", "spai-global:synflow", "reconvene:synflow",
    "reconvene-density-none:magnitude", "reconvene-density-unrounded:magnitude", "reconvene-channels-mean:magnitude",
    "reconvene-density-global-threshold:magnitude", "reconvene-density-random-layers:magnitude",
    "reconvene-density-inherit:magnitude", "reconvene-density-reinitialize-all:magnitude",
)  # fmt: skip


def pair(text: str) -> tuple[str, str]:
    """``method:score``; the score is magnitude unless named."""
    method, _, score = text.partition(":")
    return method, score or "magnitude"


def asked(options: argparse.Namespace) -> list[Run]:
    """Every network of the grid, those of a seed together."""
    methods = [pair(text) for text in (*options.methods, *(ABLATIONS if options.ablations else ()))]
    settings = tuple(sorted(method_settings(None, options.set).items()))
    runs: list[Run] = []
    for model in options.model:
        preset = f"{model}-{options.dataset}" if options.preset == "own" else options.preset
        runs += grid(
            methods, options.sparsities, options.seeds, at=options.at, compute=options.compute, model=model,
            width=options.width, dataset=options.dataset, preset=preset, settings=settings,
        )  # fmt: skip
    return sorted(runs, key=lambda run: run.seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["vgg16"])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD[:SCORE]")
    parser.add_argument(
        "--ablations", action="store_true", help="other scores, SPaI by score, and Reconvene's options, too"
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--at", nargs="+", choices=PLACES, default=["p"], help="what is equal between methods")
    parser.add_argument("--compute", nargs="+", choices=COMPUTE, default=["epochs"], help="and between trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="laptop", help="'own' is that of a model and its data, as vgg16-cifar10")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the preset")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--engine", choices=list(ENGINES), default="processes")
    parser.add_argument("--minutes", type=float, help="stop then, with checkpoints; for the engine side-by-side")
    parser.add_argument("--work", type=Path, default=Path("out/accuracy"), help="checkpoints")
    parser.add_argument("--results", type=Path, help="docs/results/accuracy-DATASET.jsonl unless given")
    parser.add_argument("--latency", action="store_true", help="only measure latencies of what is there")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    results = options.results or FOLDER / f"accuracy-{options.dataset}.jsonl"
    machine = Hardware(options.device, "bfloat16" if options.bfloat16 else "float32", options.threads)
    place = Environment(options.work, options.data, machine, options.minutes and 60 * options.minutes)
    try:
        if options.latency:
            lines = [timed_again(line, place) for line in track(read_results(results), "runs")]
            write_text(results, "".join(json.dumps(line) + "\n" for line in lines))
        elif not options.report_only:
            runs = asked(options)
            for folder in (options.work, results.parent):
                folder.mkdir(parents=True, exist_ok=True)
            done = sweep(runs, results, place, engine=options.engine, workers=options.workers)
            if len(done) < len(runs):
                print(f"{len(done)} of {len(runs)} runs are done; the same line again goes on", file=sys.stderr)
        lines = read_results(results)
    except ReconveneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not lines and options.minutes:
        return 0
    if not lines:
        print(f"error: no results in '{results}' yet", file=sys.stderr)
        return 2
    print(reports(lines, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
