"""Accuracy of pruned networks over methods, scores, degrees p and seeds: trains a grid, makes tables and plots of it.

    python benchmarks/accuracy.py                      # the whole protocol; goes on where it was stopped
    python benchmarks/accuracy.py --report-only        # tables and plots of the runs there are

The protocol is for two cores and some hours: a quarter of VGG-16 on 10,000 images of CIFAR-10 for 8 epochs (the preset
``laptop``), p of 0.5, 0.8, 0.9 and 0.95, three seeds. It compares methods with each other, and says nothing about records.
SPaI has as many parameters as Reconvene at the same p. Data are found as ``reconvene train`` finds them (RECONVENE_DATA, or
--data). Results: one line of JSON a run in docs/results/accuracy.jsonl, and from them accuracy.md and the plots beside it.
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

from reconvene.driver.sweep import ENGINES, Place, grid, read_results, sweep
from reconvene.driver.training.loop import Machine
from reconvene.driver.verbs import method_settings
from reconvene.frontend.errors import ReconveneError

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
METHODS = ("dense", "upai:magnitude", "upai:synflow", "spai-uniform:magnitude", "reconvene:magnitude")
ABLATIONS = (
    "upai:random", "upai:snip", "upai:grasp", "spai-global:magnitude", "spai-global:synflow", "reconvene:synflow",
    "reconvene-global-threshold:magnitude", "reconvene-random-layers:magnitude", "reconvene-inherit:magnitude",
    "reconvene-reinitialize-all:magnitude",
)  # fmt: skip
AXES = {
    "parameters": "parameters that are not masked",
    "macs": "multiply-accumulates",
    "latency_ms": "latency, PyTorch eager, batch 1, ms",
    "train_seconds": "seconds of training",
}
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


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Means over seeds; accuracy with its sample standard deviation."""
    made = [
        "| method | p | seeds | accuracy % | stored parameters | not masked | MACs | latency ms | prune s | train s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (name, sparsity), group in sorted(grouped(lines).items(), key=lambda item: (item[0][1], item[0][0])):
        values = [100 * line["accuracy"] for line in group]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        made.append(
            f"| {name} | {sparsity:g} | {len(group)} | {statistics.fmean(values):.1f}{spread} |"
            f" {mean(group, 'parameters'):,.0f} | {mean(group, 'weights'):,.0f} | {mean(group, 'macs') / 1e6:.1f} M |"
            f" {mean(group, 'latency_ms'):.2f} | {mean(group, 'prune_seconds'):.1f} | {mean(group, 'train_seconds'):.0f} |"
        )
    return "\n".join(made)


def plots(lines: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Accuracy against each of `AXES`, one picture each."""
    from charts import chart, save

    written = []
    for field, title in AXES.items():
        figure, axes = chart(title, "accuracy on test images, %")
        axes.set(xscale="log")
        names = dict.fromkeys(label(line) for line in lines)
        for name in names:
            groups = [group for (other, _), group in grouped(lines).items() if other == name]
            points = sorted((mean(g, FIELDS.get(field, field)), 100 * mean(g, "accuracy")) for g in groups)
            axes.plot(*zip(*points, strict=True), "o-", label=name)
        written.append(folder / f"accuracy-{field.replace('_', '-')}.svg")
        save(figure, axes, written[-1])
    return written


def report(lines: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes ``accuracy.json``, ``accuracy.md`` and the plots."""
    first = lines[0]
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    facts = {name: first[name] for name in ("model", "width", "data", "preset", "settings", "precision", "threads")}
    record = {"setting": facts | first["environment"], "lines": list(lines)}
    (folder / "accuracy.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = [
        "---\norphan: true\n---\n",
        f"# Accuracy: {first['model']} of width {first['width']:g} on {first['data']}\n",
        f"Preset {first['preset']}, changed by {first['settings'] or 'nothing'}; {first['precision']},"
        f" {first['threads']} thread(s) a run; {setting}. Means over seeds. Made by `benchmarks/accuracy.py`. Training seconds"
        " are of a machine that may have had other work.\n",
        table(lines) + "\n",
        *(f"![{AXES[field]}]({path.name})\n" for field, path in zip(AXES, plots(lines, folder), strict=True)),
    ]
    (folder / "accuracy.md").write_text("\n".join(text), encoding="utf-8")


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
    parser.add_argument("--results", type=Path, default=FOLDER / "accuracy.jsonl")
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args()
    try:
        if not options.report_only:
            methods = [pair(text) for text in (*options.methods, *(ABLATIONS if options.ablations else ()))]
            settings = tuple(sorted(method_settings(None, options.set).items()))
            runs = grid(
                methods, options.sparsities, options.seeds, model=options.model, width=options.width,
                dataset=options.dataset, preset=options.preset, settings=settings,
            )  # fmt: skip
            machine = Machine(options.device, "bfloat16" if options.bfloat16 else "float32", options.threads)
            options.work.mkdir(parents=True, exist_ok=True)
            place = Place(options.work, options.data, machine)
            sweep(runs, options.results, place, engine=options.engine, workers=options.workers)
        lines = read_results(options.results)
    except ReconveneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if not lines:
        print(f"error: no results in '{options.results}' yet", file=sys.stderr)
        return 2
    report(lines, options.results.parent)
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
