"""Unstructured pruning: the lowest scores of all weights go, in one round or in several, over the network or by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ..canonicalize import canonicalize
from ..masks import check_finite
from ..weight_views import weight_views
from .allocation import ALLOCATIONS
from .decisions import check_sparsity
from .scores import Batch, Evidence, Loss, Request, Score, Weight, check_scores, score_for, scored_weights

__all__ = ["SCHEDULES", "LayerSparsity", "Sparsification", "sparsify", "weight_masks"]

Bools = NDArray[np.bool_]

SCHEDULES: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {
        "exponential": lambda sparsity, done: 1 - (1 - sparsity) ** done,
        "linear": lambda sparsity, done: sparsity * done,
    }
)
"""The sparsity after a share `done` of the rounds. Exponential: every round takes the same share of what is left."""


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros of one weight."""

    name: str
    weights: int
    zeros: int
    convolution: bool

    @property
    def sparsity(self) -> float:
        return self.zeros / self.weights


@dataclass(frozen=True, eq=False)
class Sparsification:
    """What unstructured pruning decided. The model is as it was."""

    masks: Mapping[str, Tensor] = field(repr=False)
    """By parameter name, boolean, of the parameter's shape, True to keep."""
    scores: Mapping[str, Tensor] = field(repr=False)
    """Of the last round, by parameter name."""
    layers: tuple[LayerSparsity, ...]


def sparsify(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    score: str = "magnitude",
    sparsity: float = 0.9,
    *,
    allocation: str = "global",
    rounds: int | None = None,
    schedule: str = "exponential",
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
    ignore: Sequence[str] = (),
    masks: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Sparsification:
    """Masks that remove exactly ``round(sparsity * weights)`` weights of convolutions and linear layers.

    Args:
        module: a captured module.
        example_inputs: positional inputs that fit it; SynFlow takes their shapes.
        score: of `pruning.scores.SCORES`. Of equal scores, those earlier in the network go first.
        sparsity: share of the weights to remove, at least 0 and below 1.
        allocation: ``global`` ranks all weights together; ``uniform`` and ``erk`` rank within layers.
        rounds: scores are computed anew, on what is left, this many times; by default as the score's authors do.
        schedule: how the sparsity grows over the rounds, of `SCHEDULES`.
        batches: inputs and targets, for SNIP and GraSP; see `pruning.scores.synthetic_batches` if there are none.
        loss: for these two.
        ignore: patterns (``fnmatch``) of parameter names that stay whole; they do not count for the share.
        masks: what is gone already, by parameter name, True to keep; it counts for the share and does not come back.
        seed: of random scores.

    Raises:
        InputError: an option is out of range, data are missing, or there is nothing to prune.
    """
    evidence = Evidence(tuple(example_inputs), batches, loss, seed)
    return weight_masks(
        module, evidence, score, sparsity, allocation=allocation, rounds=rounds, schedule=schedule, ignore=ignore,
        masks=masks,
    )  # fmt: skip


def weight_masks(
    module: fx.GraphModule,
    evidence: Evidence,
    score: str | Score,
    sparsity: float,
    *,
    allocation: str = "global",
    rounds: int | None = None,
    schedule: str = "exponential",
    ignore: Sequence[str] = (),
    masks: Mapping[str, Tensor] | None = None,
) -> Sparsification:
    """`sparsify`, for callers that have their evidence together."""
    chosen = score_for(score, evidence)
    _check(sparsity, allocation, rounds, schedule)
    canonical = canonicalize(module)
    check_finite(canonical)
    moved = {
        view.name for view in weight_views(canonical) if view.source
    }  # They have the zeros of what they are made of.
    weights = tuple(
        weight
        for weight in scored_weights(canonical)
        if weight.name not in moved and not any(fnmatch(weight.name, pattern) for pattern in ignore)
    )
    if not weights:
        raise InputError("this model has no convolution or linear layer whose weights could be pruned")
    generator = torch.Generator().manual_seed(evidence.seed)
    ranking = _Ranking(weights, masks or {})
    scores: dict[str, Tensor] = {}
    count = rounds or chosen.rounds
    for number in track(range(1, count + 1), f"scoring weights by {chosen.name}"):
        request = Request(canonical, weights, evidence, ranking.masks(), generator)
        scores = {name: value.detach() for name, value in chosen.weigh(request).items()}
        check_scores(chosen.name, scores)
        ranking.remove_lowest(scores, SCHEDULES[schedule](sparsity, number / count), allocation)
    kept = ranking.masks()
    layers = tuple(
        LayerSparsity(weight.name, weight.size, weight.size - int(kept[weight.name].sum()), weight.convolution)
        for weight in weights
    )
    return Sparsification(kept, scores, layers)


def _check(sparsity: float, allocation: str, rounds: int | None, schedule: str) -> None:
    check_sparsity(sparsity)
    if allocation != "global" and allocation not in ALLOCATIONS:
        raise InputError(f"there is no allocation '{allocation}'; choose global, {', '.join(ALLOCATIONS)}")
    if schedule not in SCHEDULES:
        raise InputError(f"there is no schedule '{schedule}'; choose one of {', '.join(SCHEDULES)}")
    if rounds is not None and rounds < 1:
        raise InputError(f"{rounds} rounds prune nothing; give 1 or more")


class _Ranking:
    """What is kept of all weights, and room for their scores: one array each, which hundreds of rounds write to again."""

    def __init__(self, weights: Sequence[Weight], masks: Mapping[str, Tensor]) -> None:
        """With what is there before the first round."""
        self._weights = weights
        sizes = [weight.size for weight in weights]
        self._kept = torch.ones(sum(sizes), dtype=torch.bool)
        self._parts = dict(zip([weight.name for weight in weights], self._kept.split(sizes), strict=True))
        self._room = torch.empty(0, dtype=torch.float64)
        for name, mask in masks.items():
            if name not in self._parts:
                raise InputError(f"there is no weight '{name}' to prune further; take its mask out")
            part = self._parts[name]
            if mask.numel() != part.numel():
                raise InputError(f"the mask of '{name}' has {mask.numel()} entries, the weight {part.numel()}")
            part.copy_(mask.reshape(-1))

    def masks(self) -> dict[str, Tensor]:
        """As they are now, True to keep."""
        return {weight.name: self._parts[weight.name].clone().reshape(weight.shape) for weight in self._weights}

    def remove_lowest(self, scores: Mapping[str, Tensor], sparsity: float, allocation: str) -> None:
        """Takes the lowest scores of what is kept out, until the sparsity is reached."""
        kept, values = self._kept.numpy(), self._ranked(scores).numpy()
        if allocation == "global":
            kept &= without_lowest(values, round(sparsity * values.size))
            return
        shares = ALLOCATIONS[allocation](self._weights, sparsity)
        ends = np.cumsum([weight.size for weight in self._weights])[:-1]
        for weight, keep, value in zip(self._weights, np.split(kept, ends), np.split(values, ends), strict=True):
            keep &= without_lowest(value, round(shares[weight.name] * weight.size))

    def _ranked(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The scores of all weights, with what is gone already below all others."""
        flat = [scores[weight.name].reshape(-1) for weight in self._weights]
        torch.cat(flat, out=self._room)
        return self._room.masked_fill_(~self._kept, -math.inf)


def without_lowest(values: NDArray[np.floating], count: int) -> Bools:
    """True but for the `count` lowest values; of equal ones the first go."""
    if count <= 0:
        return np.ones(values.size, bool)
    threshold = nth_lowest(values, count)
    keep = values > threshold
    spared = values.size - int(np.count_nonzero(keep)) - count
    if spared:
        keep[np.flatnonzero(values == threshold)[-spared:]] = True
    return keep


def nth_lowest(values: NDArray[np.floating], n: int, sample: int = 1 << 16) -> np.floating:
    """The n-th lowest value, n from 1.

    SynFlow asks for it 100 times among tens of millions: a sorted sample brackets the rank, so that only the few percent of
    values between two of its elements have to be partitioned (Floyd and Rivest, 1975, doi 10.1145/360680.360691). Where the
    bracket misses the rank, as it can with many equal values, all are.
    """
    if values.size > 16 * sample:
        drawn = np.sort(values[:: values.size // sample])
        rank, margin = n * drawn.size // values.size, 4 * math.isqrt(drawn.size)
        low, high = drawn[max(rank - margin, 0)], drawn[min(rank + margin, drawn.size - 1)]
        above = values > low
        before = values.size - int(np.count_nonzero(above))
        between = values[above & (values <= high)]
        if before < n <= before + between.size:
            values, n = between, n - before
    found: np.floating = np.partition(values, n - 1)[n - 1]
    return found
