"""Accuracy of pruned networks over methods, scores, degrees p and seeds: trains a grid, makes tables and plots of it.

    python benchmarks/accuracy.py --bfloat16           # the whole protocol; goes on where it was stopped
    python benchmarks/accuracy.py --bfloat16 --dataset fashion-mnist
    python benchmarks/accuracy.py --latency            # latencies of the runs there are, on a machine without other work
    python benchmarks/accuracy.py --report-only        # tables and plots of the runs there are

The protocol is for two cores and an hour for each data set: a quarter of VGG-16 on 10,000 images of CIFAR-10 for 8 epochs
(the preset ``laptop``), p of 0.5, 0.8, 0.9 and 0.95, three seeds; bfloat16 (autocast) where the processor multiplies it
faster. It compares methods with each other, and says nothing about records.
SPaI has as many parameters as Reconvene at the same p. Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or
--data). Results: one line of JSON a run in docs/results/accuracy-cifar10.jsonl, and from them a page and plots beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from reconvene.driver.sweep import ENGINES, Environment, grid, read_results, sweep, timed_again
from reconvene.driver.training.loop import Hardware
from reconvene.driver.verbs.settings import method_settings
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text
from reconvene.frontend.base.progress import track

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
METHODS = ("dense", "upai:magnitude", "upai:synflow", "spai-uniform:magnitude", "reconvene:magnitude")
ABLATIONS = (
    "upai:random", "upai:snip", "upai:grasp", "spai-global:magnitude", "spai-global:synflow", "reconvene:synflow",
    "reconvene-density-none:magnitude", "reconvene-density-unrounded:magnitude", "reconvene-channels-mean:magnitude",
    "reconvene-density-global-threshold:magnitude", "reconvene-density-random-layers:magnitude",
    "reconvene-density-inherit:magnitude", "reconvene-density-reinitialize-all:magnitude",
)  # fmt: skip
AXES = {
    "parameters": "parameters that are not masked",
    "macs": "multiply-accumulates",
    "compiled_latency_ms": "latency, compiled, batch 1, ms",
    "train_seconds": "seconds of training",
}
OURS = "reconvene, magnitude"
FIELDS = {"parameters": "weights"}
"""Where the axis is not the field of the same name."""


def pair(text: str) -> tuple[str, str]:
    """``method:score``; the score is magnitude unless named."""
    method, _, score = text.partition(":")
    return method, score or "magnitude"


def label(line: dict[str, Any]) -> str:
    return "dense" if line["method"] == "dense" else f"{line['method']}, {line['score']}"


def grouped(lines: Sequence[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Runs that differ in their seed only."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[label(line), line["sparsity"]].append(line)
    return groups


def mean(lines: Sequence[dict[str, Any]], field: str) -> float:
    return statistics.fmean(line[field] for line in lines)


def milliseconds(group: Sequence[dict[str, Any]]) -> str:
    """Of the compiled networks; a dash where they have not been timed yet."""
    return f"{mean(group, 'compiled_latency_ms'):.3f}" if all("compiled_latency_ms" in line for line in group) else "–"


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Means over seeds; accuracy with its sample standard deviation."""
    made = [
        "| method | p | seeds | accuracy % | stored parameters | not masked | MACs | eager ms | compiled ms | prune s |"
        " train s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, sparsity), group in sorted(grouped(lines).items(), key=lambda item: (item[0][1], item[0][0])):
        values = [100 * line["accuracy"] for line in group]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        made.append(
            f"| {name} | {sparsity:g} | {len(group)} | {statistics.fmean(values):.1f}{spread} |"
            f" {mean(group, 'parameters'):,.0f} | {mean(group, 'weights'):,.0f} | {mean(group, 'macs') / 1e6:.1f} M |"
            f" {mean(group, 'latency_ms'):.2f} | {milliseconds(group)} | {mean(group, 'prune_seconds'):.1f} |"
            f" {mean(group, 'train_seconds'):.0f} |"
        )
    return "\n".join(made)


def differences(lines: Sequence[dict[str, Any]]) -> str:
    """Points of accuracy that Reconvene has more than each other method at the same p, seed by seed."""
    by = {(label(line), line["sparsity"], line["seed"]): 100 * line["accuracy"] for line in lines}
    others = list(dict.fromkeys(name for name, _, _ in by if name not in (OURS, "dense")))
    made = [f"| p | {' | '.join(others)} |", f"|{'---|' * (len(others) + 1)}"]
    for sparsity in sorted({p for name, p, _ in by if name == OURS}):
        seeds = [seed for name, p, seed in by if (name, p) == (OURS, sparsity)]
        cells = []
        for other in others:
            both = [seed for seed in seeds if (other, sparsity, seed) in by]
            found = [by[OURS, sparsity, seed] - by[other, sparsity, seed] for seed in both]
            spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
            cells.append(f"{statistics.fmean(found):+.1f}{spread}" if found else "–")
        made.append(f"| {sparsity:g} | {' | '.join(cells)} |")
    return "\n".join(made)


def plots(lines: Sequence[dict[str, Any]], folder: Path, stem: str) -> dict[Path, str]:
    """Accuracy against each of `AXES` that all runs have, one picture each, with its title."""
    from charts import chart, save

    written = {}
    for field, title in AXES.items():
        if not all(FIELDS.get(field, field) in line for line in lines):
            continue
        figure, axes = chart(title, "accuracy on test images, %")
        axes.set(xscale="log")
        names = dict.fromkeys(label(line) for line in lines)
        for name in names:
            groups = [group for (other, _), group in grouped(lines).items() if other == name]
            points = sorted((mean(g, FIELDS.get(field, field)), 100 * mean(g, "accuracy")) for g in groups)
            axes.plot(*zip(*points, strict=True), "o-", label=name)
        path = folder / f"{stem}-{field.replace('_', '-')}.svg"
        save(figure, axes, path)
        written[path] = title
    return written


def report(lines: Sequence[dict[str, Any]], results: Path) -> None:
    """Writes a record, a page and the plots beside `results`, with its name."""
    first = lines[0]
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    facts = {name: first[name] for name in ("model", "width", "data", "preset", "settings", "precision", "threads")}
    record = {"setting": facts | first["environment"], "lines": list(lines)}
    results.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    drawn = plots(lines, results.parent, results.stem)
    text = [
        "---\norphan: true\n---\n",
        f"# Accuracy: {first['model']} of width {first['width']:g} on {first['data']}\n",
        f"Preset {first['preset']}, changed by {first['settings'] or 'nothing'}; {first['precision']},"
        f" {first['threads']} thread(s) a run; {setting}. Means over seeds. Made by `benchmarks/accuracy.py`. Seconds of"
        " pruning and training are of a machine that had other work; latencies were measured afterwards, without.\n",
        table(lines) + "\n",
        "Points of accuracy that Reconvene (magnitude) has more than each other at the same p, by pairs of equal seeds:\n",
        differences(lines) + "\n",
        *(f"![{title}]({path.name})\n" for path, title in drawn.items()),
    ]
    results.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD[:SCORE]")
    parser.add_argument(
        "--ablations", action="store_true", help="other scores, SPaI by score, and Reconvene's options, too"
    )
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.8, 0.9, 0.95])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change the preset")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--workers", type=int, default=2, help="runs at a time")
    parser.add_argument("--engine", choices=list(ENGINES), default="processes")
    parser.add_argument("--work", type=Path, default=Path("out/accuracy"), help="checkpoints")
    parser.add_argument("--results", type=Path, help="docs/results/accuracy-DATASET.jsonl unless given")
    parser.add_argument("--latency", action="store_true", help="only measure latencies of what is there")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    results = options.results or FOLDER / f"accuracy-{options.dataset}.jsonl"
    machine = Hardware(options.device, "bfloat16" if options.bfloat16 else "float32", options.threads)
    place = Environment(options.work, options.data, machine)
    try:
        if options.latency:
            lines = [timed_again(line, place) for line in track(read_results(results), "runs")]
            write_text(results, "".join(json.dumps(line) + "\n" for line in lines))
        elif not options.report_only:
            methods = [pair(text) for text in (*options.methods, *(ABLATIONS if options.ablations else ()))]
            settings = tuple(sorted(method_settings(None, options.set).items()))
            runs = grid(
                methods, options.sparsities, options.seeds, model=options.model, width=options.width,
                dataset=options.dataset, preset=options.preset, settings=settings,
            )  # fmt: skip
            options.work.mkdir(parents=True, exist_ok=True)
            sweep(runs, results, place, engine=options.engine, workers=options.workers)
        lines = read_results(results)
    except ReconveneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not lines:
        print(f"error: no results in '{results}' yet", file=sys.stderr)
        return 2
    report(lines, results)
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
