"""Scores of single weights, one to a file: how dear a weight is, before it has been trained or after."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ....frontend.base.errors import InputError
from .base import Batch, Loss, Request, Score, Weight, scored_weights, synthetic_batches
from .grasp import GRASP
from .magnitude import MAGNITUDE
from .random import RANDOM
from .snip import SNIP
from .synflow import SYNFLOW

__all__ = ["SCORES", "Batch", "Loss", "Request", "Score", "Weight", "find_score", "scored_weights", "synthetic_batches"]

SCORES: Mapping[str, Score] = MappingProxyType(
    {score.name: score for score in (MAGNITUDE, RANDOM, SNIP, GRASP, SYNFLOW)}
)
"""All scores by name."""


def find_score(name: str) -> Score:
    """The score called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in SCORES:
        raise InputError(f"no score is called '{name}'; there are {', '.join(SCORES)}")
    return SCORES[name]
