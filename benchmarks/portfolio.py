"""A portfolio made of sparse levels: sizes, accuracies and latencies, beside DNNShifter's own conversion of the same levels.

    reconvene train-levels vgg16 --dataset cifar10 --width 0.25 --levels 8 --share 0.5 --rewind 1ep -o out/levels
    python benchmarks/portfolio.py out/levels -o out/portfolio --json docs/results/portfolio.json

For every level: accuracy of the sparse network, of the shrunk one (the same), and of what the original's single pass over
all-zero filters computes; parameters as stored sparse (all of them), after the single pass, and shrunk; latency of the sparse
network, whose zeros are computed with, and of the shrunk one, on the same engine in the same run, by turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from single_pass import single_pass

from reconvene.driver.portfolio.build import Options, build_portfolio
from reconvene.driver.portfolio.manifest import VARIANTS, Portfolio
from reconvene.driver.portfolio.sources import levels_sources
from reconvene.driver.reports.latency import measure
from reconvene.driver.reports.report import environment
from reconvene.driver.training.evaluation import accuracy, answers
from reconvene.driver.training.levels import LEVELS_FILE, open_levels
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.data.datasets import find_dataset
from reconvene.frontend.program_file import load_program

ENGINES = ("eager", "reconvene")


def rows(portfolio: Portfolio, levels: Path, options: Options) -> list[dict[str, Any]]:
    """One for each level, from dense on."""
    made = []
    for level in open_levels(levels):
        variant = portfolio.variant(level.name)
        sparse, inputs = load_program(level.model)
        shrunk, _ = load_program(portfolio.folder / VARIANTS / level.name / "model.pt2")
        assert inputs is not None and options.images is not None
        one = (inputs[0][:1],)
        original = single_pass(sparse)
        found = measure({"sparse": (sparse, one), "shrunk": (shrunk, one)}, repeat=options.repeat, engines=ENGINES)
        times = {f"{row.engine}_{row.variant}_ms": row.median_ms for row in found}
        made.append(
            {
                "level": level.name,
                "sparsity": level.zeros / level.weights,
                "train_seconds": level.seconds,
                "sparse_accuracy": variant.source["sparse_accuracy"],
                "accuracy": variant.accuracy,
                "answers_that_differ": variant.source["answers_that_differ"],
                "single_pass_accuracy": accuracy(
                    answers(original.module, options.images, options.count), options.images
                ),
                "parameters_sparse": variant.source["sparse_parameters"],
                "parameters_single_pass": original.parameters,
                "parameters": variant.parameters,
                "nonzero": variant.nonzero,
                "bytes": variant.bytes,
                "peak_memory_bytes": variant.peak_memory_bytes,
                "macs_sparse": variant.source["sparse_macs"],
                "macs": variant.macs,
                "largest_difference": variant.certificate and variant.certificate["max_relative"],
                "shrink_seconds": variant.source["shrink_seconds"],
                "compile_seconds": variant.source["compile_seconds"],
                **times,
            }
        )
        print(f"{level.name}: done", file=sys.stderr)
    return made


def table(found: list[dict[str, Any]]) -> str:
    """Accuracy, size and latency, a row a level."""
    lines = [
        "| level | zeros | accuracy sparse | shrunk | single pass | parameters sparse | single pass | shrunk | smaller than"
        " sparse | MACs | eager, sparse to shrunk, ms | compiled, ms | faster | shrink s | compile s | train s |",
        "|" + "---|" * 16,
    ]
    for row in found:
        eager = f"{row['eager_sparse_ms']:.2f} to {row['eager_shrunk_ms']:.2f}"
        compiled = f"{row['reconvene_sparse_ms']:.3f} to {row['reconvene_shrunk_ms']:.3f}"
        lines.append(
            f"| {row['level']} | {row['sparsity']:.2%} | {row['sparse_accuracy']:.2%} | {row['accuracy']:.2%} |"
            f" {row['single_pass_accuracy']:.2%} | {row['parameters_sparse']:,} | {row['parameters_single_pass']:,} |"
            f" {row['parameters']:,} | {row['parameters_sparse'] / row['parameters']:.2f} | {row['macs'] / 1e6:.2f} M |"
            f" {eager} | {compiled} | {row['reconvene_sparse_ms'] / row['reconvene_shrunk_ms']:.2f} |"
            f" {row['shrink_seconds']:.2f} | {row['compile_seconds']:.1f} | {row['train_seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("levels", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/portfolio"))
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        levels = json.loads((options.levels / LEVELS_FILE).read_text(encoding="utf-8"))["settings"]
        images = find_dataset(options.dataset).load(options.data, "test")
        chosen = Options(images=images, count=levels["test_images"], repeat=options.repeat)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        portfolio = build_portfolio(levels_sources(options.levels), options.output, "levels", chosen)
        seconds = time.perf_counter() - started
        found = rows(portfolio, options.levels, chosen)
    except (ReconveneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    setting = {**environment(), "threads": 1, "dtype": "float32", "batch": 1, "portfolio_seconds": round(seconds, 1)}
    print(table(found))
    if options.json:
        record = {"setting": setting, "levels": levels, "rows": found}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
