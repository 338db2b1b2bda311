"""SNIP: how much the loss changes, to first order, when a weight goes (Lee et al., 2019, arXiv 1810.02340, equation 6).

The score is |w * dL/dw|. With several batches, it is the mean of the batches' scores by their sizes, the absolute value
taken of each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Request, Score, gradients

__all__ = ["SNIP"]


def weigh(request: Request) -> dict[str, Tensor]:
    total = sum(len(targets) for _, targets in request.evidence.batches)
    scores = {weight.name: torch.zeros_like(request.tensor(weight)) for weight in request.weights}
    for batch in request.evidence.batches:
        values, slopes = gradients(request, batch)
        for weight, value, slope in zip(request.weights, values, slopes, strict=True):
            scores[weight.name] += (value.detach() * slope).abs() * (len(batch[1]) / total)
    return scores


SNIP = Score("snip", weigh, needs_data=True)
