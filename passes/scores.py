"""How much a channel matters: one number per channel of a group, larger is dearer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from .dependency import ChannelGroup, Slices
from .values import attribute

__all__ = ["SCORES", "Score", "l1_norm", "l2_norm", "random_score"]

Floats = NDArray[np.float64]
Score = Callable[[fx.GraphModule, ChannelGroup, np.random.Generator], Floats]
"""Takes the canonical module, a group and a random generator; gives float64 scores, one per channel."""


def l1_norm(module: fx.GraphModule, group: ChannelGroup, generator: np.random.Generator) -> Floats:
    """Sum of absolute weights that make the channel, over all its layers (Li et al., 2017)."""
    return _norm(module, group, 1)


def l2_norm(module: fx.GraphModule, group: ChannelGroup, generator: np.random.Generator) -> Floats:
    """Euclidean norm of the weights that make the channel, over all its layers."""
    return _norm(module, group, 2)


def random_score(module: fx.GraphModule, group: ChannelGroup, generator: np.random.Generator) -> Floats:
    """Uniform in [0, 1)."""
    return generator.random(group.size)


SCORES: Mapping[str, Score] = {
    "magnitude": l2_norm,
    "magnitude-l1": l1_norm,
    "magnitude-l2": l2_norm,
    "random": random_score,
}
"""Scores by the method name the command line and `prune` use."""


def _norm(module: fx.GraphModule, group: ChannelGroup, order: int) -> Floats:
    total = np.zeros(group.size)
    for part in group.slices:
        tensor = attribute(module, part.parameter).detach()
        if part.role == "producer" and tensor.dim() > 1:
            total += _summed_by_channel(tensor, part, order)
    return total if order == 1 else np.sqrt(total)


def _summed_by_channel(tensor: torch.Tensor, part: Slices, order: int) -> Floats:
    by_position = tensor.transpose(0, part.axis).flatten(1).double().abs().pow(order).sum(1).cpu().numpy()
    present = part.positions >= 0
    return np.asarray((by_position[part.positions] * present).sum(1))
