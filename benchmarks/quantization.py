"""What 8-bit integers cost EfficientNet-Lite0 with its ImageNet weights, by how ranges are found and what is done beside.

    python benchmarks/quantization.py [--json docs/results/quantization.json --markdown docs/results/quantization.md]

Ranges are found on crops of ten photographs, or on dead leaves, and what comes of it is measured on the other ten and
crops of these. The whole network is rounded, but for layers that are named.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import reconvene
from reconvene.driver.reports.report import environment
from reconvene.frontend.base.files import write_text
from reconvene.frontend.capture import capture
from reconvene.frontend.data.datasets import imagenet_samples
from reconvene.frontend.networks.pretrained import efficientnet_lite0
from reconvene.passes.recovery.views import crops

RESULTS = """## In 8-bit integers

EfficientNet-Lite0 with its ImageNet weights, rounded without training, on photographs that no range was found on:
[by observer and option](results/quantization.md).
"""
"""The section of the results."""

WAYS: dict[str, dict[str, Any]] = {
    "min-max": {"observer": "min-max"},
    "percentile": {"observer": "percentile"},
    "histogram": {},
    "histogram, biases corrected": {"correct_bias": True},
    "histogram, equal ranges": {"equalize": True},
    "histogram, three layers in float": {"float_worst": 3},
    "histogram, on dead leaves": {"calibration": "leaves"},
}
SEED = 0


def rows(images: int) -> list[dict[str, Any]]:
    """What each way gives."""
    samples = imagenet_samples(224)
    photographs, labels = samples.batch(), torch.from_numpy(samples.labels)
    seen, held = photographs[::2], photographs[1::2]
    judged = torch.cat([held, crops(held, images, SEED)])
    module = capture(efficientnet_lite0(), (seen[:1],))
    with torch.inference_mode():
        dense = int((module(held).argmax(1) == labels[1::2]).sum())
    found = []
    for way, options in WAYS.items():
        given = {"calibration": crops(seen, images, SEED), **options}
        result = reconvene.quantize(module, **given, evaluation=judged, seed=SEED)
        with torch.inference_mode():
            right = int((result.module(held).argmax(1) == labels[1::2]).sum())
        noisy = min(layer.decibels for layer in result.report.layers if layer.decibels is not None)
        found.append(
            {
                "way": way,
                "photographs": len(held),
                "right": right,
                "dense": dense,
                "agreement": result.report.network.agreement,
                "decibels": result.report.network.decibels,
                "examples": result.report.network.examples,
                "noisiest": noisy,
                "float": [layer.name for layer in result.report.floats],
                "bytes": result.report.bytes_after,
                "bytes_before": result.report.bytes_before,
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    head = ["ranges", "network, dB", "noisiest layer, dB", "same first answer", "right", "bytes"]
    lines = [
        [
            row["way"], f"{row['decibels']:.1f}", f"{row['noisiest']:.1f}", f"{row['agreement']:.1%}",
            f"{row['right']} of {row['photographs']}", f"{row['bytes'] / row['bytes_before']:.1%}",
        ]
        for row in found
    ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def page(record: dict[str, Any]) -> str:
    """All of it as Markdown."""
    first = record["rows"][0]
    setting = "; ".join(f"{name} {value}" for name, value in record["setting"].items())
    told = (
        f"With its ImageNet weights; ranges found on {record['setting']['images']} crops of ten photographs (ImageNet-1k, of"
        f" the package foolbox), and measured on the other ten and {first['examples'] - first['photographs']} crops of these."
        f" In float {first['dense']} of these ten are right. Bytes are those of parameters, beside float's."
        " `python benchmarks/quantization.py` makes this page."
    )
    return f"# EfficientNet-Lite0 in 8-bit integers\n\n{told}\n\n{setting}\n\n{table(record['rows'])}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    record = {"setting": {**environment(), "images": options.images, "seed": SEED}, "rows": rows(options.images)}
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    if options.markdown:
        write_text(options.markdown, page(record))


if __name__ == "__main__":
    main()
