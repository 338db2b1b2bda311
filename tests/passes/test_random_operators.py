"""Random operators: both graphs draw the same numbers, and with the same seed the result draws the model's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.dependency import dependency_view
from tests.support.pruning import prune

from ..support.models import masked_copy

X = torch.randn(3, 8, dtype=torch.float64)


class Noisy(nn.Module):
    """Two layers with something random between or behind them."""

    def __init__(self, inner: Callable[[Tensor], Tensor], outer: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(8, 12), nn.Linear(12, 10), nn.Linear(10, 4)
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(self.last(self.inner(self.hidden(self.first(x).relu()).relu())))
        return y


def same_draws(model: nn.Module) -> tuple[int, int]:
    """Prunes half, compares under one seed, and gives the widths of the first two layers."""
    model = model.double().eval()
    result = prune(capture(model, (X,)), (X,))
    expected = masked_copy(model, result.plan.masks)
    with torch.no_grad():
        torch.manual_seed(7)
        wanted = expected(X)
        torch.manual_seed(7)
        found = result.module(X)
    assert float((wanted - found).abs().max()) <= 1e-12 * float(wanted.abs().max())
    return len(result.module.get_parameter("first.weight")), len(result.module.get_parameter("hidden.weight"))


@pytest.mark.parametrize(
    "outer",
    [
        lambda y: y + torch.randn(4, dtype=y.dtype),
        lambda y: y + torch.randn_like(y) * torch.rand(3, 1, dtype=y.dtype),
        lambda y: y * torch.bernoulli(torch.full_like(y, 0.5)),
        lambda y: y + torch.normal(0.0, 1.0, (3, 4), dtype=y.dtype) + torch.randint(0, 9, (4,)),
        lambda y: y + torch.empty_like(y).uniform_(),
        lambda y: y[:, torch.randperm(4)],
    ],
)
def test_noise_behind_the_last_layer_holds_nothing(outer: Callable[[Tensor], Tensor]) -> None:
    assert same_draws(Noisy(lambda h: h, outer)) == (6, 5)


@pytest.mark.parametrize(
    "inner",
    [
        lambda h: h + torch.randn_like(h),
        lambda h: h * torch.bernoulli(torch.full_like(h, 0.5)),
        lambda h: h + torch.rand(10, dtype=h.dtype),
        lambda h: torch.nan_to_num(torch.poisson(h.abs())),
    ],
)
def test_channels_of_random_numbers_stay_and_the_layer_before_them_goes(inner: Callable[[Tensor], Tensor]) -> None:
    assert same_draws(Noisy(inner, lambda y: y + torch.randn_like(y))) == (6, 10)


def test_a_draw_that_nothing_reads_keeps_its_place() -> None:
    def outer(y: Tensor) -> Tensor:
        torch.randn(5)
        return y + torch.randn_like(y)

    assert same_draws(Noisy(lambda h: h, outer)) == (6, 5)


def test_what_draws_is_named_where_it_holds_channels() -> None:
    model = Noisy(lambda h: h + torch.randn_like(h)).double().eval()
    barriers = prune(capture(model, (X,)), (X,)).barriers
    assert [barrier.operator for barrier in barriers] == ["aten.randn_like"]
    assert "draws random numbers" in barriers[0].reason
    assert "test_random_operators.py" in (barriers[0].source or "")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.ops.aten.dropout(x, 0.5, True),
        lambda x: torch.ops.aten.alpha_dropout(x, 0.5, True),
        lambda x: torch.ops.aten.rrelu(x, 0.1, 0.3, True),
    ],
)
def test_dropout_that_is_switched_on_is_random(call: Callable[[Tensor], Tensor]) -> None:
    graph = capture(Noisy(call).double().eval(), (X,))
    for node in graph.graph.nodes:
        if any(name in node.name for name in ("dropout", "rrelu")):
            node.args = (*node.args[:-1], True)
    view = dependency_view(graph)
    reasons = {group.name: group.reason for group in view.groups}
    assert "draws random numbers" in (reasons["hidden.weight"] or "")
    assert reasons["first.weight"] is None


def test_dropout_in_inference_is_not() -> None:
    assert same_draws(Noisy(lambda h: F.dropout(h, 0.5, False))) == (6, 5)


def test_the_generator_is_left_as_it_was() -> None:
    model = Noisy(lambda h: h, lambda y: y + torch.randn_like(y)).double().eval()
    graph = capture(model, (X,))
    before = torch.get_rng_state()
    prune(graph, (X,))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_default_dtype() is torch.float32
