"""What pruning without training leaves of EfficientNet-Lite0 with its ImageNet weights, with and without recovery.

    python benchmarks/recovery.py [--work out/recovery] [--json docs/results/recovery.json --markdown docs/results/recovery.md]

Photographs of 20 that are right (top-1 and top-5), and crops of them on which the smaller network's first answer is the dense
one's. Calibration inputs are synthetic, drawn without any photograph; or crops of half of the photographs, and the others are
counted, and the other way round. Every finished row is kept in the work folder, and so are the synthetic inputs: a run that was
ended goes on where it was. Shares are of the channels of all groups. Seconds are of CPU, on the threads that are named.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text
from reconvene.frontend.capture import capture
from reconvene.frontend.data.datasets import imagenet_samples
from reconvene.frontend.graph_module import CapturedModule
from reconvene.frontend.networks.pretrained import efficientnet_lite0
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.compaction import compact
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.groups import ChannelGroup
from reconvene.passes.outcome import Compaction
from reconvene.passes.pruning.decisions import Decision, rounded
from reconvene.passes.pruning.methods.base import Aim
from reconvene.passes.pruning.methods.one_shot import Magnitude
from reconvene.passes.pruning.methods.reconstruction import Reconstruction, spread
from reconvene.passes.pruning.scores import Evidence
from reconvene.passes.pruning.trial import tried
from reconvene.passes.recovery.elimination import Elimination
from reconvene.passes.recovery.least_squares import LeastSquares, recover
from reconvene.passes.recovery.spared import eliminations
from reconvene.passes.recovery.synthetic import Synthetic, synthetic_calibration
from reconvene.passes.recovery.views import crops

RESULTS = """## Pruned without training it again

EfficientNet-Lite0 with its ImageNet weights on 20 photographs and crops of them, with and without recovery by least squares, on
synthetic inputs and on other photographs: [what is left](results/recovery.md).
"""
"""The section of the results."""
SHARES = (0.05, 0.1, 0.2, 0.3)
MORE_SHARES = (0.25, 0.35)
"""For the way that leaves most right: which share it can be."""
SEED = 0
_ENOUGH = 16
"""Photographs of 20."""
_CALIBRATED = 32
"""Crops of photographs that layers are solved on."""


def answers(module: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    """Outputs (N, classes). Convolutions of the processor are faster with a pixel's channels side by side."""
    with torch.inference_mode():
        return torch.cat([module(part.contiguous(memory_format=torch.channels_last)) for part in images.split(10)])


@dataclass(frozen=True, eq=False)
class Counted:
    """Photographs and crops that networks are judged on."""

    photographs: Tensor
    labels: Tensor
    crops: Tensor
    wanted: Tensor
    """What the dense network answers on the crops."""

    def judge(self, module: fx.GraphModule) -> dict[str, int]:
        found, cropped = answers(module, self.photographs), answers(module, self.crops)
        return {
            "photographs": len(self.labels),
            "top1": int((found.argmax(1) == self.labels).sum()),
            "top5": int((found.topk(5).indices == self.labels[:, None]).any(1).sum()),
            "crops": len(self.crops),
            "agree": int((cropped.argmax(1) == self.wanted).sum()),
        }


class Bench:
    """The network, its photographs, and what is worth computing once."""

    def __init__(self, work: Path, synthetic: Synthetic, number: int) -> None:
        self.work, self.synthetic = work, synthetic
        model, samples = efficientnet_lite0(), imagenet_samples()
        self.images, self.labels = samples.batch(), torch.from_numpy(samples.labels)
        self.example = (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(SEED)),)
        self.module: CapturedModule = capture(model, self.example)
        self.halves = torch.randperm(20, generator=torch.Generator().manual_seed(1)).reshape(2, 10)
        self._number = number
        self._counted: dict[str, Counted] = {}
        self._costs: dict[str, tuple[dict[ChannelGroup, Elimination], float]] = {}

    @cached_property
    def view(self) -> DependencyView:
        return dependency_view(canonicalize(self.module))

    def counted(self, name: str) -> Counted:
        """``all`` photographs, or a half of them, ``first`` or ``second``."""
        if name not in self._counted:
            chosen = {"all": torch.arange(20), "first": self.halves[0], "second": self.halves[1]}[name]
            cut = crops(self.images[chosen], self._number * len(chosen) // 20, SEED)
            wanted = answers(self.module, cut).argmax(1)
            self._counted[name] = Counted(self.images[chosen], self.labels[chosen], cut, wanted)
        return self._counted[name]

    def calibration(self, kind: str) -> list[tuple[Tensor]]:
        """Calls with synthetic inputs, or with crops of half of the photographs."""
        if kind != "synthetic":
            return [(crops(self.images[self.halves[int(kind == "second")]], _CALIBRATED, SEED + 1),)]
        file = self.work / f"synthetic-{key(vars(self.synthetic))}.npz"
        if not file.exists():
            began = time.process_time()
            calls = synthetic_calibration(self.module, self.example, self.synthetic, SEED).calls
            images = np.stack([call[0].numpy() for call in calls])
            np.savez(file, images=images, seconds=time.process_time() - began)
        return [(images,) for images in torch.from_numpy(np.load(file)["images"])]

    def synthetic_seconds(self) -> float:
        return float(np.load(self.work / f"synthetic-{key(vars(self.synthetic))}.npz")["seconds"])

    def costs(self, kind: str) -> tuple[dict[ChannelGroup, Elimination], float]:
        """Of all channels, and the seconds that it takes to tell them."""
        if kind not in self._costs:
            began = time.process_time()
            free = [group for group in self.view.groups if group.prunable]
            found = eliminations(self.view, free, self.calibration(kind), Reconstruction().ridge, SEED)
            self._costs[kind] = found, time.process_time() - began
        return self._costs[kind]

    def removed(self, method: str, kind: str, share: float) -> Compaction:
        """The smaller network, as the removal leaves it."""
        if method == "magnitude":
            return Magnitude().prune(self.module, Evidence(self.example, seed=SEED), Aim(share)).compaction
        found, _ = self.costs(kind)
        lost = spread(found, share, Aim().widths)
        decisions = [
            rounded(group, found[group].ranks, lost[group])
            if group in found
            else Decision(group, 0, np.zeros(group.size, bool), ())
            for group in self.view.groups
        ]
        trial = tried(self.module, self.view, decisions)
        return compact(self.module, self.example, trial.masks, analysis=trial.analysis, dtype=torch.float32)


@dataclass(frozen=True)
class Case:
    """One smaller network and what it is judged on."""

    method: str
    share: float
    recovery: bool
    calibration: str
    """``synthetic``, or the half of the photographs: ``first``, ``second``; ``none`` where nothing is looked at."""

    @property
    def judged(self) -> str:
        return {"first": "second", "second": "first"}.get(self.calibration, "all")

    def run(self, bench: Bench) -> dict[str, Any]:
        """The row."""
        small = bench.removed(self.method, self.calibration, self.share)
        module, seconds, errors = small.module, 0.0, {}
        if self.recovery:
            began = time.process_time()
            calls = bench.calibration(self.calibration)
            module, found = recover(bench.module, small.module, small.plan, calls, LeastSquares(), seed=SEED)
            seconds = time.process_time() - began
            middle = len(found.layers) // 2
            errors = {
                name: sorted(getattr(layer, name) for layer in found.layers)[middle] for name in ("before", "after")
            }
        told = bench.costs(self.calibration)[1] if self.method == "reconstruction" else 0.0
        return {
            **vars(self),
            **bench.counted(self.judged).judge(module),
            "parameters": small.after.parameters / small.before.parameters,
            "macs": small.after.macs / small.before.macs,
            "error": errors,
            "cost_seconds": told,
            "recovery_seconds": seconds,
        }


def cases(shares: Sequence[float], more: Sequence[float]) -> Iterator[Case]:
    """All of them, what is asked most first."""
    for share in sorted({*shares, *more}):
        yield Case("reconstruction", share, True, "synthetic")
    for method, recovery, calibration in (
        ("reconstruction", True, "first"),
        ("reconstruction", True, "second"),
        ("reconstruction", False, "synthetic"),
        ("reconstruction", False, "first"),
        ("reconstruction", False, "second"),
        ("magnitude", False, "none"),
        ("magnitude", True, "synthetic"),
    ):
        for share in shares:
            yield Case(method, share, recovery, calibration)


def key(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every smaller network."""
    names = (
        "channels out | chosen by | chosen on | solved anew on | right of 20 | among five | as the dense | parameters | MACs"
        " | CPU s"
    )
    lines = [f"| {names} |", "|---" * 10 + "|"]
    lines += [
        f"| {row['share']:.0%} | {row['method']} | {row['chosen_on']} | {row['on']} | {row['top1']} | {row['top5']} |"
        f" {row['agree'] / row['crops']:.1%} | {row['parameters']:.1%} | {row['macs']:.1%} | {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def largest(rows: list[dict[str, Any]]) -> str:
    """Which share leaves enough right without any data."""
    blind = [row for row in rows if (row["method"], row["on"]) == ("reconstruction", "synthetic")]
    good = [row for row in blind if row["top1"] >= _ENOUGH]
    if not good:
        return f"Without data, no share leaves {_ENOUGH} photographs right."
    most = max(good, key=lambda row: row["share"])
    return (
        f"Without data, the largest of these shares that leaves {_ENOUGH} photographs right is {most['share']:.0%}, with"
        f" {most['top1']} of {most['photographs']}."
    )


def page(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    setting, dense = record["setting"], record["dense"]
    lines = [
        "# Pruning a trained network without training it again", "",
        "EfficientNet-Lite0 with its ImageNet weights, on 20 photographs (ImageNet-1k, of the package foolbox) and"
        f" {dense['crops']} crops of them. No training, and with synthetic calibration no data: nothing looks at a photograph"
        " but the count. With photographs, costs are told and layers are solved on"
        f" {_CALIBRATED} crops of ten of them, and the other ten are counted, then the other way round; both counts are added."
        " `python benchmarks/recovery.py` makes this page.", "",
        "; ".join(f"{name} {value}" for name, value in setting.items()), "",
        f"The dense network: {dense['top1']} of 20 right, {dense['top5']} among the first five.", "",
        largest(record["rows"]), "",
        table(record["rows"]), "",
        f"Synthetic inputs took {record['synthetic_seconds']:.0f} s of CPU, once, which are not counted.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def measurements(rows: Sequence[dict[str, Any]], same: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows of one measurement each: both halves of the photographs, which agree in `same`; half a measurement is none."""
    for row in rows:
        if row["calibration"] == "first":
            others = [r for r in rows if r["calibration"] == "second" and all(r[name] == row[name] for name in same)]
            if others:
                yield [row, *others]
        elif row["calibration"] != "second":
            yield [row]


def joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the page has them: both halves of the photographs as one."""
    found = []
    for parts in measurements(rows, ("method", "share", "recovery")):
        row = parts[0]
        looked = {"first": "photographs", "none": "nothing"}.get(row["calibration"], row["calibration"])
        total = {name: sum(part[name] for part in parts) for name in ("photographs", "top1", "top5", "crops", "agree")}
        mean = {name: sum(part[name] for part in parts) / len(parts) for name in ("parameters", "macs")}
        found.append(
            {
                "share": row["share"],
                "method": row["method"],
                "chosen_on": looked if row["method"] == "reconstruction" else "nothing",
                "on": looked if row["recovery"] else "nothing",
                **total,
                **mean,
                "seconds": sum(part["cost_seconds"] + part["recovery_seconds"] for part in parts) / len(parts),
            }
        )
    return sorted(found, key=lambda row: row["share"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/recovery"))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--more-shares", type=float, nargs="+", default=list(MORE_SHARES))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=Synthetic().steps)
    parser.add_argument("--views", type=int, default=Synthetic().views)
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", help="calibrations whose rows are measured, and no page: first, second, none"
    )
    parser.add_argument("--measured", action="store_true", help="no row is measured: the page has those that there are")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    synthetic = Synthetic(images=options.images, steps=options.steps, views=options.views)
    told = [vars(synthetic), dataclasses.asdict(Reconstruction()), options.crops]
    bench, rows = Bench(options.work, synthetic, options.crops), []
    for case in cases(options.shares, options.more_shares):
        if options.only and case.calibration not in options.only:
            continue
        file = options.work / f"row-{key([vars(case), *told])}.json"
        if not file.exists():
            if options.measured:
                continue
            write_text(file, json.dumps(case.run(bench)))
        rows.append(json.loads(file.read_text(encoding="utf-8")))
        print(json.dumps(rows[-1]), flush=True)
    if options.only:
        return
    setting = environment() | {
        "threads": options.threads,
        "images": options.images,
        "steps": options.steps,
        "views": options.views,
        "seed": SEED,
    }
    record = {
        "setting": setting,
        "dense": bench.counted("all").judge(bench.module),
        "synthetic_seconds": bench.synthetic_seconds(),
        "rows": joined(rows),
    }
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, page(record))


if __name__ == "__main__":
    main()
