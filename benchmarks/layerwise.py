"""What zeros inside layers leave of EfficientNet-Lite0 with its ImageNet weights, made without data, labels or training.

    python benchmarks/layerwise.py [--work out/recovery] [--json docs/results/layerwise.json]
        [--markdown docs/results/layerwise.md]

Photographs, crops and calibration inputs are those of `benchmarks/recovery.py`. ``magnitude`` zeroes the smallest blocks and
leaves all other weights; ``layerwise`` makes each layer the one of the structure whose outputs are nearest to the dense
network's on the calibration inputs (the method `layerwise`). Both halves of the photographs are counted with the other as
calibration, and added. Every finished row is kept in the work folder.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from recovery import SEED, Bench, key, measurements

from reconvene import prune
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text
from reconvene.frontend.graph_module import CapturedModule
from reconvene.passes.recovery.synthetic import Synthetic

RESULTS = """## Zeros inside a trained network, without data

EfficientNet-Lite0 with its ImageNet weights, blocks of zeros by magnitude and layer by layer on synthetic inputs:
[what is left](results/layerwise.md).
"""
"""The section of the results."""
STRUCTURES = ("row-block:4",)
SHARES = (0.3, 0.5, 0.7)
_OTHER_HALF = {"first": "second", "second": "first"}
_LOOKED_AT = {"none": "nothing", "first": "photographs"}
_COUNTS = ("photographs", "top1", "top5", "crops", "agree")


@dataclass(frozen=True)
class Case:
    """One network with zeros and what it is judged on."""

    structure: str
    share: float
    method: str
    scope: str
    """``layer``: the same share in every layer; ``global``: by what layers' outputs lose."""
    calibration: str
    """``synthetic``, a half of the photographs, or ``none``."""

    def run(self, bench: Bench) -> dict[str, Any]:
        """The row."""
        began = time.process_time()
        how = {} if self.calibration == "none" else {"calibration": bench.calibration(self.calibration)}
        made = prune(
            bench.module,
            method=self.method,
            sparsity=self.share,
            structure=self.structure,
            scope=self.scope,
            seed=SEED,
            **how,
        )
        seconds = time.process_time() - began
        assert isinstance(made.module, CapturedModule)
        zeros = sum(layer.zeros for layer in made.report.zeros)
        return {
            **vars(self),
            **bench.counted(_OTHER_HALF.get(self.calibration, "all")).judge(made.module),
            "weights": (made.report.after.parameters - zeros) / made.report.before.parameters,
            "seconds": seconds,
        }


def cases(structures: Sequence[str], shares: Sequence[float]) -> Iterator[Case]:
    for structure in structures:
        for share in shares:
            yield Case(structure, share, "magnitude", "layer", "none")
            for scope in ("layer", "global"):
                for calibration in ("synthetic", "first", "second"):
                    yield Case(structure, share, "layerwise", scope, calibration)


def joined(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the page has them: both halves of the photographs as one."""
    found = []
    for parts in measurements(rows, ("structure", "share", "method", "scope")):
        row = parts[0]
        counts = {name: sum(part[name] for part in parts) for name in _COUNTS}
        means = {name: sum(part[name] for part in parts) / len(parts) for name in ("weights", "seconds")}
        found.append({**row, "calibration": _LOOKED_AT.get(row["calibration"], row["calibration"]), **counts, **means})
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for every network."""
    lines = [
        "| zeros | made by | shares | on | right of 20 | among five | as the dense | weights left | CPU s |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {row['structure']} {row['share']:.0%} | {row['method']} | by {row['scope']} | {row['calibration']} |"
        f" {row['top1']} | {row['top5']} | {row['agree'] / row['crops']:.1%} | {row['weights']:.1%} | {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def page(record: dict[str, Any]) -> str:
    setting, dense = record["setting"], record["dense"]
    return (
        "# Zeros inside a trained network, without data\n\nEfficientNet-Lite0 with its ImageNet weights, on 20 photographs and"
        f" {dense['crops']} crops of them, as in [what channels leave](recovery.md). First convolution, depthwise layers and"
        " classifier stay dense. Nothing is trained, and with synthetic calibration nothing looks at a photograph but the"
        " count. `python benchmarks/layerwise.py` makes this page.\n\n"
        f"{'; '.join(f'{name} {value}' for name, value in setting.items())}\n\n"
        f"The dense network: {dense['top1']} of 20 right, {dense['top5']} among the first five.\n\n{table(record['rows'])}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/recovery"))
    parser.add_argument("--structures", nargs="+", default=list(STRUCTURES))
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=Synthetic().steps)
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    synthetic = Synthetic(images=options.images, steps=options.steps)
    bench, rows = Bench(options.work, synthetic, options.crops), []
    for case in cases(options.structures, options.shares):
        file = options.work / f"zeros-{key([vars(case), vars(synthetic), options.crops])}.json"
        if not file.exists():
            write_text(file, json.dumps(case.run(bench)))
        rows.append(json.loads(file.read_text(encoding="utf-8")))
        print(json.dumps(rows[-1]), flush=True)
    told = {"threads": options.threads, "images": options.images, "steps": options.steps, "seed": SEED}
    dense = bench.counted("all").judge(bench.module)
    record = {"setting": environment() | told, "dense": dense, "rows": joined(rows)}
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, page(record))


if __name__ == "__main__":
    main()
