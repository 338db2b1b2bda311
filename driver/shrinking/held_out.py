"""Training images that are not trained on: they decide between candidates, so that the test images tell of the result alone.

The authors' code scores candidates, and chooses teachers, on the test images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from ...frontend.base.errors import InputError
from ...frontend.data.datasets import Images, balanced
from ...passes.pruning.scores import Batch
from ..training.sources import Data, Way, source_of

__all__ = ["calibration", "split"]


def split(data: Data, share: float) -> tuple[Data, Data]:
    """What is trained on, and what is held out: the same items every time.

    Raises:
        InputError: the data are a loader, whose items have no places, or too few.
    """
    if isinstance(data, DataLoader):
        raise InputError("a loader cannot be split into images to train on and others; give its data set")
    items = len(data)  # type: ignore[arg-type]
    count = round(share * items)
    if not 0 < count < items:
        raise InputError(f"held_out {share} of {items} training images leaves none to train on, or none to hold out")
    order = np.random.default_rng(0).permutation(items)
    places = np.sort(order[count:]), np.sort(order[:count])
    if not isinstance(data, Images):
        rest, held = (Subset(data, some.tolist()) for some in places)
        return rest, held
    names = f"{data.name} without {count} held out", f"{count} held out of {data.name}"
    rest_images, held_images = (
        replace(data, name=name, pixels=data.pixels[some], labels=data.labels[some])
        for name, some in zip(names, places, strict=True)
    )
    return rest_images, held_images


def calibration(data: Data, count: int, seed: int) -> tuple[Batch, ...]:
    """About so many of the images for scores, of every class as many and one at least; of other data a batch."""
    if not isinstance(data, Images):
        few = Way(min(count, len(data)), seed=seed)  # type: ignore[arg-type]
        batch = source_of(data, few, torch.device("cpu")).sample()
        return ((batch.inputs, batch.targets),)
    _, there = np.unique(data.labels, return_counts=True)
    images, labels = balanced(data, max(1, min(count // len(there), int(there.min()))), seed)
    return (((images,), labels),)
