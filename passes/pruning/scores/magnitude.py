"""Magnitude: the absolute value of a weight (Han et al., 2015); the score that Reconvene uses."""

from __future__ import annotations

from torch import Tensor

from .base import Request, Score

__all__ = ["MAGNITUDE"]


def weigh(request: Request) -> dict[str, Tensor]:
    return {weight.name: request.tensor(weight).abs() for weight in request.weights}


MAGNITUDE = Score("magnitude", weigh)
