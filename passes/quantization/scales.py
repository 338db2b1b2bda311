"""What ties the scales of a layer's weights to its bias, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ScaleNames", "bias_floor", "name_scales"]

_STEPS, _STEPS_OF_ZEROS = 2.0**30, 2.0**20
"""What a bias may be in steps of its sum: at most half of what 32 bits hold; and where all weights of the channel are zero, so
that any scale would do, with six digits."""


@dataclass(frozen=True)
class ScaleNames:
    """Under which names a weight's scales and zero points are stored."""

    scale: str
    zero: str


def name_scales(weight: str) -> ScaleNames:
    """Of a weight of this name."""
    return ScaleNames(f"{weight}_scale", f"{weight}_zero_point")


def bias_floor(bias: Tensor, weight: Tensor, scale: float, axis: int) -> Tensor:
    """What the scales of `weight` along `axis` are at least, so that `bias` fits into 32 bits.

    A bias is a whole multiple of the scales of the layer's input and weights. Small weights beside a large bias would not allow
    that; TFLite makes such scales larger, too. `scale`: of the input.
    """
    bias = bias.detach().double().abs().reshape(-1, weight.shape[axis]).amax(0)  # Groups share the scales of axis 1.
    zeros = weight.detach().movedim(axis, 0).flatten(1).eq(0).all(1)
    return bias / (scale * torch.where(zeros, _STEPS_OF_ZEROS, _STEPS))
