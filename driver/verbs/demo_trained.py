"""The second part of the demo: EfficientNet-Lite0 with its ImageNet weights, pruned without training and without data."""

from __future__ import annotations

import dataclasses

import torch

from ...frontend.data.datasets import imagenet_samples
from ...frontend.networks.pretrained import efficientnet_lite0
from ...passes.recovery.synthetic import Synthetic
from .. import api
from ..reports.report import Fact, Report
from .demo_measuring import compiled, compiled_agrees, hits, scores, timed

__all__ = ["SHARE", "efficientnet"]

SEED = 0
SHARE = 0.3
"""Of the channels: the largest, in steps of 5 %, that leaves 16 of the 20 photographs right; see docs/results/recovery.md."""
CALIBRATION = Synthetic(images=16, steps=40)


def efficientnet(repeat: int) -> Report:
    """The report of both networks: photographs that are right, parameters, latency.

    The photographs are looked at when they are counted, and the first of them when the compiled networks are timed.

    Raises:
        InputError: the package with the weights or that with the photographs is not there.
        CheckError: the small network does not compute what the masked one does.
    """
    model, photographs = efficientnet_lite0(), imagenet_samples()
    example = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(SEED))
    dense = api.capture(model, (example,))
    found = api.prune(
        dense, (example,), "reconstruction", SHARE, seed=SEED, recover="least-squares", calibration=CALIBRATION
    )
    images, labels = photographs.batch(), torch.from_numpy(photographs.labels)
    variants = {"dense": dense, "compacted": found.module}
    built = compiled(variants, images[:1])
    outputs = {name: scores(module, images) for name, module in variants.items()}
    before, small = outputs["dense"], outputs["compacted"]
    same = int((before.argmax(1) == small.argmax(1)).sum())
    facts = (
        Fact(f"Right of {len(labels)} photographs", hits(before, labels), hits(small, labels)),
        Fact("Right among the first five answers", hits(before, labels, 5), hits(small, labels, 5)),
        Fact("Predictions that equal the dense network's", "", f"{same}/{len(labels)}"),
        compiled_agrees(built, outputs, images),
    )
    report = dataclasses.replace(
        found.report,
        title=f"EfficientNet-Lite0 on ImageNet, {SHARE:.0%} of its channels out, not trained",
        facts=facts,
        notes=(note(), *found.report.notes),
    )
    return report.with_latency(timed(variants, built, images[:1], repeat, ("reconvene", "eager")))


def note() -> str:
    """What was done, and what was not, for a person."""
    return (
        f"{SHARE:.0%} of the channels went, and the layers that read them were solved anew on {CALIBRATION.images} images"
        " drawn from the network's own statistics: no training, no labels, no data. Of shares in steps of 5 % it is the largest"
        " that leaves 16 of the 20 photographs right. Training the small network on real images would add what is still"
        " missing at this share, and it is what larger shares need."
    )
