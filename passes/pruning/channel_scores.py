"""How much a channel matters: one number per channel of a group, larger is dearer; made of the scores of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...frontend.base.errors import InputError
from ..dependency import DependencyView
from ..groups import ChannelGroup, Slices
from ..values import attribute
from .scores import SCORES, Batch, Loss, Request, Weight

__all__ = ["METHODS", "channel_scores", "summed_scores"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A score of weights, and how those of a channel become one number."""

    score: str
    order: int = 1
    """1: their sum; 2: the root of the sum of their squares."""


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "magnitude": Method("magnitude", 2),
        "magnitude-l1": Method("magnitude", 1),
        "magnitude-l2": Method("magnitude", 2),
        "random": Method("random"),
        "snip": Method("snip"),
        "grasp": Method("grasp"),
        "synflow": Method("synflow"),
    }
)
"""By the method name that the command line and `prune` use. Magnitudes are those of Li et al. (2017)."""


def channel_scores(
    view: DependencyView,
    groups: Sequence[ChannelGroup],
    method: str,
    example_inputs: Sequence[Any] = (),
    *,
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
    seed: int = 0,
) -> dict[ChannelGroup, Floats]:
    """Float64 scores, one per channel of every group, in one round.

    Raises:
        InputError: the method needs data and there are none.
    """
    if method == "random":
        # One number a channel: sums of many random numbers would be all but equal.
        generator = np.random.default_rng(seed)
        return {group: generator.random(group.size) for group in groups}
    chosen, order = SCORES[METHODS[method].score], METHODS[method].order
    if chosen.needs_data and not batches:
        raise InputError(f"{method} scores channels on data; give batches (inputs, targets)")
    request = Request(view.module, _makers(view, groups), tuple(example_inputs), {}, batches, loss)
    scores = chosen.weigh(request)
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
