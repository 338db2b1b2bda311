"""Random scores: the baseline that any other must beat."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Request, Score

__all__ = ["RANDOM"]


def weigh(request: Request) -> dict[str, Tensor]:
    """Uniform in [0, 1)."""
    return {weight.name: torch.rand(weight.shape, generator=request.generator) for weight in request.weights}


RANDOM = Score("random", weigh)
