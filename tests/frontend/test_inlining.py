"""Regions that change nothing about what is computed are part of the graph; others are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reconvene.frontend.base.errors import InputError
from reconvene.frontend.capture import capture
from tests.support.pruning import prune

VECTORS = torch.randn(3, 8)


class Regions(nn.Module):
    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.hidden, self.again, self.out = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(self, x))


def autocast_off(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return model.again(model.hidden(x).relu())


def nested(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        h = model.hidden(x)
        with torch.no_grad():
            h = model.again(h.relu())
        return h * 2


def several_results(model: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        first, second = model.hidden(x).relu(), model.hidden(x).tanh()
    with torch.no_grad():
        third = model.again(first)
    return first + second + third


def without_gradients(model: Any, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = model.hidden(x).relu()
    return model.again(y.clone())


def in_a_decorator(model: Any, x: Tensor) -> Tensor:
    return torch.no_grad()(lambda y: model.again(model.hidden(y)))(x)


def checkpointed(model: Any, x: Tensor) -> Tensor:
    found: Tensor = checkpoint(lambda y: model.again(model.hidden(y).relu()), x, use_reentrant=False)
    return found


@pytest.mark.parametrize(
    "body", [autocast_off, nested, several_results, without_gradients, in_a_decorator, checkpointed]
)
def test_inert_regions_are_pruned_through(body: Callable[[Any, Tensor], Tensor]) -> None:
    model = Regions(body).eval()
    module = capture(model, (VECTORS,))
    assert torch.equal(module(VECTORS), model(VECTORS))
    assert not any("wrap" in str(node.target) for node in module.graph.nodes)
    found = prune(module, (VECTORS,), sparsity=0.5)
    assert found.module.get_parameter("hidden.weight").shape == (8, 8)
    assert found.module.get_parameter("again.weight").shape == (8, 8)


def test_an_autocast_that_is_on_is_named() -> None:
    def lower(model: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model.again(model.hidden(x).relu()).float()

    model = Regions(lower).eval()
    with pytest.raises(InputError, match="wrap_with_autocast"):
        prune(capture(model, (VECTORS,)), (VECTORS,), sparsity=0.5)
