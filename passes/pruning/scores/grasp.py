"""GraSP: how much the norm of the gradient falls when a weight goes (Wang et al., 2020, arXiv 2002.07376, equation 8).

Removing w changes the squared norm of the gradient g, to first order, by -2 w * (H g), with H the Hessian of the loss.
GraSP removes weights for which that is largest, those whose removal lets most gradient flow, so a weight is the dearer the
larger w * (H g). The outputs are divided by 200 before the loss, as its authors do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Request, Score, gradients

__all__ = ["GRASP", "TEMPERATURE"]

TEMPERATURE = 200.0


def weigh(request: Request) -> dict[str, Tensor]:
    total = sum(len(targets) for _, targets in request.evidence.batches)
    shares = [len(targets) / total for _, targets in request.evidence.batches]
    mean = [torch.zeros_like(request.tensor(weight)) for weight in request.weights]
    for batch, share in zip(request.evidence.batches, shares, strict=True):
        _, slopes = gradients(request, batch, temperature=TEMPERATURE)
        mean = [entry + slope * share for entry, slope in zip(mean, slopes, strict=True)]
    scores = {weight.name: torch.zeros_like(request.tensor(weight)) for weight in request.weights}
    for batch, share in zip(request.evidence.batches, shares, strict=True):
        values, slopes = gradients(request, batch, create_graph=True, temperature=TEMPERATURE)
        flow = sum(((slope * fixed).sum() for slope, fixed in zip(slopes, mean, strict=True)), torch.zeros(()))
        bent = torch.autograd.grad(flow, values, allow_unused=True, materialize_grads=True)
        for weight, value, change in zip(request.weights, values, bent, strict=True):
            scores[weight.name] += value.detach() * change * share
    return scores


GRASP = Score("grasp", weigh, needs_data=True)
