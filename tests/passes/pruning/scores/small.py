"""A linear network small enough to work out by hand: x = (1, 2), h = W1 x = (-1, 8), y = W2 h = -44."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reconvene.frontend.capture import capture
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.pruning.scores import Evidence, Request, scored_weights

FIRST, SECOND = "0.weight", "1.weight"
X = torch.tensor([[1.0, 2.0]])


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -1.0], [2.0, 3.0]]))
        model[1].weight.copy_(torch.tensor([[4.0, -5.0]]))
    return model


def weighted_sum(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss that is linear in the output, so that its gradient is the target."""
    return (outputs * targets).sum()


def request(model: nn.Module | None = None, inputs: Any = (X,), **options: Any) -> Request:
    module = canonicalize(capture(model or network(), inputs))
    given = {name: options.pop(name) for name in ("batches", "loss") if name in options}
    return Request(module, scored_weights(module), Evidence(inputs, **given), **options)
