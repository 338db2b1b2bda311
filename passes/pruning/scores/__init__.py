"""Scores of single weights, one to a file: how dear a weight is, before it has been trained or after."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ....frontend.base.errors import InputError
from .base import Batch, Evidence, Loss, Request, Score, Weight, check_scores, scored_weights, synthetic_batches
from .grasp import GRASP
from .magnitude import MAGNITUDE
from .random import RANDOM
from .snip import SNIP
from .synflow import SYNFLOW

__all__ = [
    "SCORES",
    "Batch",
    "Evidence",
    "Loss",
    "Request",
    "Score",
    "Weight",
    "check_scores",
    "find_score",
    "score_for",
    "scored_weights",
    "synthetic_batches",
]

SCORES: Mapping[str, Score] = MappingProxyType(
    {score.name: score for score in (MAGNITUDE, RANDOM, SNIP, GRASP, SYNFLOW)}
)
"""All scores by name."""


def find_score(name: str | Score) -> Score:
    """The score called `name`, or that was given. Raises InputError, naming those there are, where there is none."""
    if isinstance(name, Score):
        return name
    if name not in SCORES:
        raise InputError(f"no score is called '{name}'; there are {', '.join(SCORES)}")
    return SCORES[name]


def score_for(name: str | Score, evidence: Evidence) -> Score:
    """The score called `name`, or that was given.

    Raises:
        InputError: there is none, or it needs data that the evidence has not.
    """
    score = find_score(name)
    if score.needs_data and not evidence.batches:
        raise InputError(
            f"{score.name} scores weights on data; give batches (inputs, targets),"
            " or those of reconvene.passes.pruning.scores.synthetic_batches"
        )
    return score
