"""How much a channel matters: one number per channel of a group, larger is dearer; made of the scores of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..dependency import DependencyView
from ..groups import ChannelGroup, Slices
from ..values import attribute
from .scores import Evidence, Request, Score, Weight, check_scores, score_for

__all__ = ["channel_scores", "summed_scores"]

Floats = NDArray[np.float64]


def channel_scores(
    view: DependencyView, groups: Sequence[ChannelGroup], score: str | Score, evidence: Evidence, order: int = 1
) -> dict[ChannelGroup, Floats]:
    """Float64 scores, one per channel of every group, in one round.

    Args:
        view: of the model.
        groups: those to score.
        score: of weights, by its name in `pruning.scores.SCORES`, or itself.
        evidence: what the score may look at.
        order: 1: a channel's score is the sum of its weights'; 2: the root of the sum of their squares.

    Raises:
        InputError: the score needs data and there are none, or gives what is no number.
    """
    if score == "random":
        # One number a channel: sums of many random numbers would be all but equal.
        generator = np.random.default_rng(evidence.seed)
        return {group: generator.random(group.size) for group in groups}
    chosen = score_for(score, evidence)
    scores = chosen.weigh(Request(view.module, _makers(view, groups), evidence))
    check_scores(chosen.name, scores)
    return {group: summed_scores(group, scores, order) for group in groups}


def summed_scores(group: ChannelGroup, scores: Mapping[str, Tensor], order: int = 1) -> Floats:
    """The scores of all weights that make a channel, as one number per channel; weights without scores count nothing."""
    total = np.zeros(group.size)
    for part in group.slices:
        if part.role == "producer" and part.parameter in scores:
            total += _summed_by_channel(scores[part.parameter].detach(), part, order)
    return total if order == 1 else np.sqrt(total)


def _makers(view: DependencyView, groups: Sequence[ChannelGroup]) -> tuple[Weight, ...]:
    names = {part.parameter for group in groups for part in group.slices if part.role == "producer"}
    tensors = {name: attribute(view.module, name) for name in view.stored if name in names}
    return tuple(
        Weight(name, tuple(tensor.shape), any(layer.convolution for layer in view.layers.get(name, ())))
        for name, tensor in tensors.items()
        if tensor.dim() > 1 and isinstance(tensor, torch.nn.Parameter)
    )


def _summed_by_channel(scores: Tensor, part: Slices, order: int) -> Floats:
    powers = scores.double() if order == 1 else scores.double().pow(order)
    by_position = powers.transpose(0, part.axis).flatten(1).sum(1).cpu().numpy()
    present = part.positions >= 0
    return np.asarray((by_position[part.positions] * present).sum(1))
