"""The batches that scores are computed on: some images of every class of a data set, or synthetic ones."""

from __future__ import annotations

from pathlib import Path

import torch

from ..frontend.base.errors import InputError
from ..frontend.data.datasets import Images, balanced, find_dataset
from ..passes.pruning.scores import SCORES, Batch, synthetic_batches
from .models import LoadedModel
from .training.sources import Data, Way, source_of

__all__ = ["PER_CLASS", "batches_of", "scoring_batches"]

PER_CLASS = 10
"""Images of every class, as SNIP's and GraSP's authors take."""
_BATCH = 100
_CPU = torch.device("cpu")


def scoring_batches(
    loaded: LoadedModel, score: str | None, dataset: str | None, data: Path | None, synthetic: bool, seed: int
) -> tuple[Batch, ...]:
    """Batches for `score`, if there is one and it needs any, else none.

    Raises:
        InputError: it needs some and there is no data set, or the data are not on this machine.
    """
    if score is None or score not in SCORES or not SCORES[score].needs_data:
        return ()
    if synthetic:
        return synthetic_batches(loaded.module, loaded.example_inputs, size=_BATCH, seed=seed)
    if dataset is None:
        raise InputError(f"{score} scores weights on data; name some with --dataset, or say --synthetic")
    return batches_of(find_dataset(dataset).load(data, "train"), score, seed)


def batches_of(data: Data, score: str | None, seed: int) -> tuple[Batch, ...]:
    """Batches for `score` out of what is trained on, if there is one and it needs any, else none: of images some of every
    class, of other data the first ones.

    Raises:
        InputError: a class has too few images.
    """
    if score is None or score not in SCORES or not SCORES[score].needs_data:
        return ()
    if not isinstance(data, Images):
        batch = source_of(data, Way(_BATCH), _CPU).sample()
        return ((batch.inputs, batch.targets),)
    images, labels = balanced(data, PER_CLASS, seed)
    return tuple(
        ((images[start : start + _BATCH],), labels[start : start + _BATCH]) for start in range(0, len(labels), _BATCH)
    )
