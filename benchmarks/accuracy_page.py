"""Tables, plots and a page of what `accuracy.py` measured."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reconvene.driver.runs import Run

__all__ = ["differences", "reports", "table", "tables"]

Line = Mapping[str, Any]

AXES = {
    "parameters": "parameters that are not masked",
    "macs": "multiply-accumulates",
    "compiled_latency_ms": "latency, compiled, batch 1, ms",
    "train_seconds": "seconds of training",
}
FIELDS = {"parameters": "weights"}
"""Where the axis is not the field of the same name."""
REFERENCE = "upai, magnitude"
"""What others are compared with at the same p."""
PLACES = {
    "p": "At equal p",
    "weights": "At equal weights: as many as unstructured pruning to p leaves in convolutions and linear layers",
    "macs": "At equal multiply-accumulates: as many as Reconvene leaves at p; of masked networks those without zeros",
}
TRAININGS = {"epochs": "E", "equal": "B"}
"""As Liu et al. (2019) call them: equally many epochs, and equal compute."""
MISSED = 0.02
"""Share by which a place may be missed without being marked."""

_DATA = """## Accuracy on {data}

Dense, unstructured (UPaI), uniform-width (SPaI, with as many parameters as Reconvene) and Reconvene networks over degrees p
and three seeds, means and sample deviations; [with plots](results/accuracy-{name}.md). The protocol fits two cores and
compares methods with each other: a quarter of VGG-16, trained for 8 epochs on 10,000 images (batch 64, SGD, preset `laptop`),
accuracy on 2,000 test images. Training E has equally many epochs for all, B more where they are cheaper.
"""
RESULTS = {
    "accuracy-cifar10": _DATA.format(data="CIFAR-10", name="cifar10"),
    "accuracy-fashion-mnist": _DATA.format(data="Fashion-MNIST", name="fashion-mnist"),
    "accuracy-cifar10-half": """## Accuracy of a wider network on CIFAR-10

The same protocol with half of VGG-16 in place of a quarter: how much of the distance between methods is the narrow network's.
""",
    "accuracy-cifar10-full": """## Accuracy of VGG-16 at its own width on CIFAR-10

15 epochs of 20,000 images, accuracy on 5,000 test images, two seeds; [with plots](results/accuracy-cifar10-full.md).
""",
    "accuracy-cifar10-resnet20": """## Accuracy of ResNet-20 on CIFAR-10

As VGG-16 at its own width, with the widths of residual groups; [with plots](results/accuracy-cifar10-resnet20.md).
""",
}
"""The sections of the results, by the names of their files."""


def label(line: Line) -> str:
    return "dense" if line["method"] == "dense" else f"{line['method']}, {line['score']}"


def chosen(lines: Sequence[Line], at: str, compute: str) -> list[Line]:
    """The lines of networks that stand at `at` and were trained so, those for which that is no other run included."""
    keys = {replace(Run.of(line), at=at, compute=compute).plain().key for line in lines}
    return [line for line in lines if line["key"] in keys]


def grouped(lines: Sequence[Line]) -> dict[tuple[str, float], list[Line]]:
    """Runs that differ in their seed only."""
    groups: dict[tuple[str, float], list[Line]] = defaultdict(list)
    for line in lines:
        groups[label(line), line["sparsity"]].append(line)
    return groups


def mean(lines: Sequence[Line], field: str) -> float:
    return statistics.fmean(line[field] for line in lines)


def shown(group: Sequence[Line], field: str, written: Callable[[float], str]) -> str:
    """The mean as it is written; a dash where a line has none, as of what has not been timed yet."""
    return written(mean(group, field)) if all(line.get(field) is not None for line in group) else "–"


def spread(values: Sequence[float], written: str) -> str:
    """The mean, and the sample standard deviation if there is one."""
    around = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{written}}{around}"


def table(lines: Sequence[Line], at: str = "p") -> str:
    """Means over seeds of the runs at a place, both trainings; accuracy with its sample standard deviation."""
    place = "" if at == "p" else " pruned to | off by |"
    made = [
        f"| method | p |{place} training | seeds | epochs | accuracy % | stored parameters | not masked | MACs |"
        " MACs without zeros | eager ms | compiled ms | prune s | train s |",
        "|---" * (14 + place.count("|")) + "|",
    ]
    trained = {compute: grouped(chosen(lines, at, compute)) for compute in TRAININGS}
    once = {key for key in trained["epochs"] if trained["epochs"][key] == trained["equal"].get(key)}
    rows = [
        (name, sparsity, "E = B" if (name, sparsity) in once else short, group)
        for compute, short in TRAININGS.items()
        for (name, sparsity), group in trained[compute].items()
        if compute == "epochs" or (name, sparsity) not in once
    ]
    for name, sparsity, training, group in sorted(rows, key=lambda row: (row[1], row[0], row[2][:1] == "B")):
        where = "" if at == "p" else f" {found(group)} |"
        made.append(
            f"| {name} | {sparsity:g} |{where} {training} | {len(group)} | {shown(group, 'epochs', '{:g}'.format)} |"
            f" {spread([100 * line['accuracy'] for line in group], '.1f')} |"
            f" {mean(group, 'parameters'):,.0f} | {mean(group, 'weights'):,.0f} | {millions(mean(group, 'macs'))} |"
            f" {shown(group, 'effective_macs', millions)} | {shown(group, 'latency_ms', '{:.2f}'.format)} |"
            f" {shown(group, 'compiled_latency_ms', '{:.3f}'.format)} | {mean(group, 'prune_seconds'):.1f} |"
            f" {mean(group, 'train_seconds'):.0f} |"
        )
    return "\n".join(made)


def millions(number: float) -> str:
    return f"{number / 1e6:.1f} M"


def found(group: Sequence[Line]) -> str:
    """Two cells: the p that the search found, and by how much it misses what was wanted, in the worst case."""
    places = [line["placed"] for line in group if line.get("placed")]
    if not places:
        return f"{group[0]['sparsity']:g} | –"
    misses = [place["reached"] / place["wanted"] - 1 for place in places]
    worst = max(misses, key=abs)
    mark = "**" if abs(worst) > MISSED else ""
    return f"{statistics.fmean(place['sparsity'] for place in places):.3f} | {mark}{worst:+.1%}{mark}"


def differences(lines: Sequence[Line], at: str = "p", compute: str = "epochs") -> str:
    """Points of accuracy that each method has more than `REFERENCE`, seed by seed; nothing where there is none to compare."""
    lines = chosen(lines, at, compute)
    by = {(label(line), line["sparsity"], line["seed"]): 100 * line["accuracy"] for line in lines}
    names = list(dict.fromkeys(name for name, _, _ in by))
    others = [name for name in names if name not in (REFERENCE, "dense")]
    degrees = sorted({p for name, p, _ in by if name in others})
    if not degrees or REFERENCE not in names:
        return ""
    made = [f"| p | dense | {' | '.join(others)} |", f"|{'---|' * (len(others) + 2)}"]
    for sparsity in degrees:
        cells = []
        for other in ["dense", *others]:
            values = [
                value - by[REFERENCE, sparsity, seed]
                for (name, p, seed), value in by.items()
                if name == other and p == (0.0 if other == "dense" else sparsity) and (REFERENCE, sparsity, seed) in by
            ]
            cells.append(spread(values, "+.1f") if values else "–")
        made.append(f"| {sparsity:g} | {' | '.join(cells)} |")
    return "\n".join(made)


def tables(lines: Sequence[Line]) -> str:
    """Every place that there are runs at: its table, and the differences with equal epochs and with equal compute."""
    written = []
    for at, title in PLACES.items():
        if at != "p" and not any(line.get("at") == at for line in lines):
            continue
        written += [f"{title}.\n", table(lines, at) + "\n"]
        for compute, short in TRAININGS.items():
            points = differences(lines, at, compute)
            other = any(line.get("compute") == "equal" and line.get("at") == at for line in lines)
            if points and (compute == "epochs" or other):
                what = f"Points of accuracy more than {REFERENCE}, by pairs of equal seeds, training {short}"
                written.append(f"{what}:\n\n{points}\n")
    return "\n".join(written)


def plots(lines: Sequence[Line], folder: Path, stem: str) -> dict[Path, str]:
    """Accuracy against each of `AXES` that all runs have, one picture each, with its title."""
    from charts import chart, save

    written = {}
    for field, title in AXES.items():
        if not all(FIELDS.get(field, field) in line for line in lines):
            continue
        figure, axes = chart(title, "accuracy on test images, %")
        axes.set(xscale="log")
        curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for at in PLACES:
            for compute in TRAININGS:
                own = [line for line in lines if (line.get("at", "p"), line.get("compute", "epochs")) == (at, compute)]
                for (name, _), group in grouped(own).items():
                    point = (mean(group, FIELDS.get(field, field)), 100 * mean(group, "accuracy"))
                    curves[name if compute == "epochs" else f"{name}, B"].append(point)
        for name, points in curves.items():
            axes.plot(*zip(*sorted(points), strict=True), "o-", label=name)
        path = folder / f"{stem}-{field.replace('_', '-')}.svg"
        save(figure, axes, path)
        written[path] = title
    return written


def reports(lines: Sequence[Line], results: Path) -> str:
    """Writes a report of every network that there are lines of, beside `results`; gives all tables."""
    networks: dict[tuple[str, float], list[Line]] = defaultdict(list)
    for line in lines:
        networks[line["model"], line["width"]].append(line)
    for (model, width), own in networks.items():
        name = results.stem if len(networks) == 1 else f"{results.stem}-{model}-{width:g}"
        report(own, results.with_name(f"{name}.jsonl"))
    return "\n".join(tables(own) for own in networks.values())


def report(lines: Sequence[Line], results: Path) -> None:
    """Writes a record, a page and the plots beside `results`, with its name. The lines are of one network."""
    first = lines[0]
    setting = "; ".join(f"{name} {value}" for name, value in first["environment"].items())
    facts = {name: first[name] for name in ("model", "width", "data", "preset", "settings", "precision", "threads")}
    record = {"setting": facts | first["environment"], "lines": list(lines)}
    results.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    drawn = plots(lines, results.parent, results.stem) if find_spec("matplotlib") else {}
    if not drawn:
        print("no pictures without matplotlib; pip install '.[benchmarks]', then --report-only", file=sys.stderr)
    text = [
        "---\norphan: true\n---\n",
        f"# Accuracy: {first['model']} of width {first['width']:g} on {first['data']}\n",
        f"Preset {first['preset']}, changed by {first['settings'] or 'nothing'}; {first['precision']},"
        f" {first['threads']} thread(s) a run; {setting}. Means over seeds. Made by `benchmarks/accuracy.py`. Seconds of"
        " pruning and training are of a machine that had other work; latencies were measured afterwards, without. Training E"
        " has equally many epochs for all; B has more where they are cheaper than the dense network's, at most twice as many"
        " (scratch-E and scratch-B of Liu et al., 2019).\n",
        tables(lines),
        *(f"![{title}]({path.name})\n" for path, title in drawn.items()),
    ]
    results.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
