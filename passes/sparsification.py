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

from ..frontend.errors import InputError
from ..frontend.progress import track
from .allocation import ALLOCATIONS
from .canonicalize import canonicalize
from .masks import check_finite
from .scores import Batch, Loss, Request, Weight, find_score, scored_weights

__all__ = ["SCHEDULES", "LayerSparsity", "Sparsification", "sparsify"]

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
        score: of `passes.scores.SCORES`. Of equal scores, those earlier in the network go first.
        sparsity: share of the weights to remove, at least 0 and below 1.
        allocation: ``global`` ranks all weights together; ``uniform`` and ``erk`` rank within layers.
        rounds: scores are computed anew, on what is left, this many times; by default as the score's authors do.
        schedule: how the sparsity grows over the rounds, of `SCHEDULES`.
        batches: inputs and targets, for SNIP and GraSP; see `passes.scores.synthetic_batches` if there are none.
        loss: for these two.
        ignore: patterns (``fnmatch``) of parameter names that stay whole; they do not count for the share.
        masks: what is gone already, by parameter name, True to keep; it counts for the share and does not come back.
        seed: of random scores.

    Raises:
        InputError: an option is out of range, data are missing, or there is nothing to prune.
    """
    chosen = find_score(score)
    _check(sparsity, allocation, rounds, schedule)
    if chosen.needs_data and not batches:
        raise InputError(
            f"{score} scores weights on data; give batches (inputs, targets),"
            " or those of reconvene.passes.scores.synthetic_batches"
        )
    canonical = canonicalize(module)
    check_finite(canonical)
    weights = tuple(w for w in scored_weights(canonical) if not any(fnmatch(w.name, pattern) for pattern in ignore))
    if not weights:
        raise InputError("this model has no convolution or linear layer whose weights could be pruned")
    generator = torch.Generator().manual_seed(seed)
    kept = _first_kept(weights, masks or {})
    scores: dict[str, Tensor] = {}
    count = rounds or chosen.rounds
    for number in track(range(1, count + 1), f"scoring weights by {score}"):
        masks = _as_masks(weights, kept)
        request = Request(canonical, weights, tuple(example_inputs), masks, batches, loss, generator)
        scores = {name: value.detach() for name, value in chosen.weigh(request).items()}
        _check_scores(score, scores)
        _remove_lowest(weights, scores, kept, SCHEDULES[schedule](sparsity, number / count), allocation)
    layers = tuple(
        LayerSparsity(weight.name, weight.size, int(weight.size - np.count_nonzero(keep)), weight.convolution)
        for weight, keep in zip(weights, kept, strict=True)
    )
    return Sparsification(_as_masks(weights, kept), scores, layers)


def _first_kept(weights: Sequence[Weight], masks: Mapping[str, Tensor]) -> list[Bools]:
    """What is there before the first round."""
    unknown = sorted(set(masks) - {weight.name for weight in weights})
    if unknown:
        raise InputError(f"there is no weight '{unknown[0]}' to prune further; take its mask out")
    kept = []
    for weight in weights:
        keep = np.ones(weight.size, bool)
        if weight.name in masks:
            keep = masks[weight.name].reshape(-1).numpy().astype(bool)
            if keep.size != weight.size:
                raise InputError(f"the mask of '{weight.name}' has {keep.size} entries, the weight {weight.size}")
        kept.append(keep.copy())
    return kept


def _check(sparsity: float, allocation: str, rounds: int | None, schedule: str) -> None:
    if not (isinstance(sparsity, int | float) and math.isfinite(sparsity) and 0 <= sparsity < 1):
        raise InputError(f"sparsity {sparsity} is outside 0..1; give the share of weights to remove, such as 0.9")
    if allocation != "global" and allocation not in ALLOCATIONS:
        raise InputError(f"there is no allocation '{allocation}'; choose global, {', '.join(ALLOCATIONS)}")
    if schedule not in SCHEDULES:
        raise InputError(f"there is no schedule '{schedule}'; choose one of {', '.join(SCHEDULES)}")
    if rounds is not None and rounds < 1:
        raise InputError(f"{rounds} rounds prune nothing; give 1 or more")


def _check_scores(name: str, scores: Mapping[str, Tensor]) -> None:
    for weight, value in scores.items():
        if not bool(value.sum().isfinite()):
            raise InputError(
                f"{name} gives '{weight}' scores that are not finite; check the data, or use another score"
            )


def _as_masks(weights: Sequence[Weight], kept: Sequence[Bools]) -> dict[str, Tensor]:
    return {w.name: torch.from_numpy(keep).reshape(w.shape) for w, keep in zip(weights, kept, strict=True)}


def _remove_lowest(
    weights: Sequence[Weight], scores: Mapping[str, Tensor], kept: Sequence[Bools], sparsity: float, allocation: str
) -> None:
    """Takes the lowest scores of what is kept out of `kept`, in place, until the sparsity is reached."""
    values = [scores[w.name].reshape(-1).numpy()[keep] for w, keep in zip(weights, kept, strict=True)]
    if allocation == "global":
        left = [value.size for value in values]
        goal = round(sparsity * sum(weight.size for weight in weights))
        survives = without_lowest(np.concatenate(values), goal - (sum(weight.size for weight in weights) - sum(left)))
        parts = np.split(survives, np.cumsum(left)[:-1])
    else:
        shares = ALLOCATIONS[allocation](weights, sparsity)
        goals = [round(shares[weight.name] * weight.size) for weight in weights]
        gone = [weight.size - value.size for weight, value in zip(weights, values, strict=True)]
        parts = [without_lowest(v, goal - before) for v, goal, before in zip(values, goals, gone, strict=True)]
    for keep, part in zip(kept, parts, strict=True):
        keep[keep] = part


def without_lowest(values: NDArray[np.floating], count: int) -> Bools:
    """True but for the `count` lowest values; of equal ones the first go."""
    if count <= 0:
        return np.ones(values.size, bool)
    threshold = np.partition(values, count - 1)[count - 1]
    keep = values > threshold
    spared = values.size - int(np.count_nonzero(keep)) - count
    if spared:
        keep[np.flatnonzero(values == threshold)[-spared:]] = True
    return keep
