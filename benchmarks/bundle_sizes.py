"""Bytes of bundles of the same networks in float32, float16 and 8-bit integers, dense and pruned.

    python benchmarks/bundle_sizes.py [--networks resnet18 ...] [--target rpi5]
        [--json docs/results/bundle_sizes.json --markdown docs/results/bundle_sizes.md]

Untrained networks with images of their own size; half of the channels of the pruned ones, chosen at random, are gone.
Integers come of ``reconvene.quantize`` on random images: their bytes do not depend on it. Nothing runs, so that any machine
with a compiler for the target gives the same numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent))
from models import build, image_size

import reconvene
from reconvene.backends.machines.targets import find_target
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text

RESULTS = """## Bundles by type

What networks take on the disk of a board in float32, float16 and 8-bit integers, dense and pruned:
[by network](results/bundle_sizes.md).
"""
"""The section of the results."""
NETWORKS = "mobilenet_v2 resnet18 resnet50 vgg16_cifar".split()
TYPES = ("float32", "float16", "int8")
SHARE = 0.5
"""Of the channels, gone from the pruned networks."""


def rows_of(network: str, target: str) -> Iterator[dict[str, Any]]:
    """A row for each variant and type."""
    size = image_size(network, small=False)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    inputs = (images[:1],)
    small = reconvene.prune(build(network), inputs, method="random", sparsity=SHARE).module
    variants: Mapping[str, nn.Module] = {"dense": build(network), f"pruned {SHARE:.0%}": small}
    for variant, module in variants.items():
        for dtype in TYPES:
            made = reconvene.quantize(module, images, observer="min-max").module if dtype == "int8" else module
            built = reconvene.compile(made, inputs, target, dtype=dtype, check=False)  # type: ignore[arg-type]
            with tempfile.TemporaryDirectory() as temporary:
                built.export(folder := Path(temporary, "bundle"))
                files = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
            yield {
                "network": network, "variant": variant, "dtype": dtype, "target": target,
                "weights": built.memory.weights_bytes, "bundle": sum(files.values()), "program": files.get("run"),
                "parameters": sum(parameter.numel() for parameter in module.parameters()),
            }  # fmt: skip


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """MB of whole bundles and of their weights, and the share of the dense float32 one."""
    head = ["network", *(f"{dtype}: MB, of it weights" for dtype in TYPES), "dense float32 / int8"]
    lines: list[list[str]] = [head, ["---"] * len(head)]
    by = {(row["network"], row["variant"], row["dtype"]): row for row in rows}
    for network, variant in dict.fromkeys((row["network"], row["variant"]) for row in rows):
        some = [by[network, variant, dtype] for dtype in TYPES]
        cells = [f"{row['bundle'] / 1e6:.2f}, {row['weights'] / 1e6:.2f}" for row in some]
        whole = by[network, "dense", "float32"]["bundle"]
        lines.append([f"{network}, {variant}", *cells, f"{whole / some[-1]['bundle']:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(record: Mapping[str, Any]) -> str:
    """The table with its setting."""
    rows = record["rows"]
    target = find_target(rows[0]["target"])
    said = "; ".join(f"{name} {value}" for name, value in record["environment"].items())
    return (
        "---\norphan: true\n---\n\n# Bundles by type\n\n"
        f"Made by `benchmarks/bundle_sizes.py` for {target.name} ({target.cpu}); {said}. MB of a million bytes of all files of"
        " a bundle, the statically linked program with TVM's runtime among them. Weights lie as their kernels read them:"
        " Winograd's with 16 or 36 numbers for 9, and in float32 where the type asked for has no kernel.\n\n"
        f"{table(rows)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--target", default="rpi5")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    rows = []
    for network in options.networks:
        rows += list(rows_of(network, options.target))
        print(table([row for row in rows if row["network"] == network]), flush=True)
    record = {"environment": environment(), "rows": rows}
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, page(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
