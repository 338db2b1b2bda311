"""Bounds of values, and whether they can be infinite or NaN: never narrower than what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.ranges import Range, Ranges

INF, NAN = float("inf"), float("nan")
X = torch.randn(2, 5, dtype=torch.float64)
KEEP = torch.tensor([[True] * 5, [False] * 5])
COUNT = torch.tensor([[1, 0, 3, 4, 5]])


class Calls(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.norm, self.loose = nn.LayerNorm(5).double(), nn.LayerNorm(5, eps=0.0).double()
        self.layer, self.table = nn.Linear(5, 4).double(), nn.Embedding(9, 3).double()
        self.register_buffer("causal", torch.zeros(5, 5).double().masked_fill(torch.ones(5, 5).triu(1).bool(), -INF))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(self, *inputs)


def range_of(function: Callable[..., Tensor], *inputs: Tensor) -> Range:
    """Of the output of a function of a model and its inputs."""
    graph = capture(Calls(function).eval(), inputs)
    (result,) = graph.graph.output_node().all_input_nodes
    return Ranges(graph)[result]


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda m, x: x.sigmoid() + 0.5, 0.5, 1.5),
        (lambda m, x: x / (x.norm(dim=1, keepdim=True) + 1e-6), -INF, INF),
        (lambda m, x: F.normalize(x, dim=1), -INF, INF),
        (lambda m, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5), -INF, INF),
        (lambda m, x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5), -INF, INF),
        (lambda m, x: x.clamp(-2, 3) * -2, -6.0, 4.0),
        (lambda m, x: (x.tanh() - 2).abs(), 1.0, 3.0),
        (lambda m, x: x.softmax(-1), 0.0, 1.0),
        (lambda m, x: 1 / (x.exp() + 1), 0.0, 1.0),
        (lambda m, x: F.relu6(x).sqrt(), 0.0, 6**0.5),
        (lambda m, x: torch.log(x.square() + 1), 0.0, INF),
        (lambda m, x: m.norm(m.layer(x).repeat(1, 2)[:, :5]), -INF, INF),
        (lambda m, x: torch.where(x > 0, x, 0.0).nan_to_num(), -INF, INF),
        (lambda m, x: (1 / x).nan_to_num(), -INF, INF),
        (lambda m, x: x.std(1) + 1, 1.0, INF),
        (lambda m, x: torch.maximum(x, x * 0 + 2.0), 2.0, INF),
        (lambda m, x: torch.fmax(x, x * 0 + 2.0), 2.0, INF),
        (lambda m, x: torch.minimum(x, x * 0 + 2.0), -INF, 2.0),
        (lambda m, x: torch.fmin(x, x * 0 + 2.0), -INF, 2.0),
        (lambda m, x: x.sin(), -1.0, 1.0),
        (lambda m, x: x.cos() * 2 + 1, -1.0, 3.0),
        (lambda m, x: torch.rsub(x.sigmoid(), 3), 2.0, 3.0),
        (lambda m, x: torch.rsub(x.sigmoid(), 3, alpha=2), 1.0, 3.0),
        (lambda m, x: torch.sub(x.sigmoid(), 3, alpha=2), -6.0, -5.0),
        (lambda m, x: torch.add(x.sigmoid(), x.tanh(), alpha=-2), -2.0, 3.0),
        (lambda m, x: x.tanh() ** 4, -INF, INF),
        (lambda m, x: (x.sigmoid() + 1) ** -1.0, 0.5, 1.0),
        (lambda m, x: x.sigmoid() ** 3, 0.0, 1.0),
        (lambda m, x: (x.tanh() - 0.5) ** 2, 0.0, 2.25),
        (lambda m, x: x.clamp(-1.5, 2.5).floor(), -2.0, 2.0),
        (lambda m, x: x.clamp(-1.5, 2.5).ceil(), -1.0, 3.0),
        (lambda m, x: x.clamp(-1.6, 2.6).round(), -2.0, 3.0),
        (lambda m, x: x.clamp(-1.6, 2.6).trunc(), -1.0, 2.0),
        (lambda m, x: x.floor() + x.ceil() + x.trunc() + x.round(), -INF, INF),
        (lambda m, x: (x.sigmoid() + 1).rsqrt(), 0.5**0.5, 1.0),
        (lambda m, x: torch.div(x.sigmoid(), 2), 0.0, 0.5),
        (lambda m, x: torch.div(x.sigmoid(), 2, rounding_mode="floor"), -1.0, 1.5),
        (lambda m, x: -x.sigmoid().neg().abs(), -1.0, 0.0),
        (lambda m, x: x.tanh().sum(1) + x.sigmoid().sum(), -INF, INF),
        (lambda m, x: x.sigmoid().sum(1), 0.0, INF),
        (lambda m, x: x.sigmoid().neg().cumsum(1), -INF, 0.0),
        (lambda m, x: torch.cat([x.sigmoid(), x.tanh() * 3], 1), -3.0, 3.0),
        (lambda m, x: F.pad(x.sigmoid(), (1, 1)), 0.0, 1.0),
        (lambda m, x: F.pad(x.sigmoid() + 1, (1, 1)), 0.0, 2.0),
        (lambda m, x: F.pad(x.sigmoid(), (1, 1), value=-3.0), -3.0, 1.0),
        (lambda m, x: F.hardtanh(x, -3, 0.5), -3.0, 0.5),
        (lambda m, x: x.clamp(min=-2), -2.0, INF),
        (lambda m, x: x.clamp(max=-2), -INF, -2.0),
        (lambda m, x: x.erf() + x.erfc() + x.atan(), -3.0, 5.0),
        (lambda m, x: x.softmax(-1).masked_fill(x > 0, -1.0), -1.0, 1.0),
        (lambda m, x: F.softplus(x) + F.elu(x).sum() * 0, 0.0, INF),
        (lambda m, x: (x > 0).sum(1) / 5, 0.0, INF),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.causal[:2, :2]), -INF, INF),
    ],
)
def test_finite_values(function: Callable[..., Tensor], low: float, high: float) -> None:
    found = range_of(function, X)
    assert found.finite
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (lambda m, x: 1 / x, (X,)),
        (lambda m, x: x / x.norm(dim=1, keepdim=True), (X,)),
        (lambda m, x, keep: keep / keep.sum(1, keepdim=True), (X, KEEP)),
        (lambda m, x, keep: x / keep.sum(1, keepdim=True).clamp(min=0), (X, KEEP)),
        (lambda m, x, keep: x.masked_fill(~keep, -INF).softmax(-1), (X, KEEP)),
        (lambda m, x, keep: torch.where(keep, x, INF), (X, KEEP)),
        (lambda m, x: (x @ x.T)[:1, :1] + m.causal, (X,)),
        (lambda m, x: x.log(), (X,)),
        (lambda m, x: x.sqrt(), (X,)),
        (lambda m, x: x.sigmoid().log(), (X,)),
        (lambda m, x: x.sigmoid().log2(), (X,)),
        (lambda m, x: x.sigmoid().log10(), (X,)),
        (lambda m, x: x.tanh().log1p(), (X,)),
        (lambda m, x: x.relu().rsqrt(), (X,)),
        (lambda m, x: x.sigmoid() ** -1.0, (X,)),
        (lambda m, x: x.tanh() ** 0.5, (X,)),
        (lambda m, x: x.tanh() ** -2.0, (X,)),
        (lambda m, x: F.scaled_dot_product_attention(x, x, 1 / x), (X,)),
        (lambda m, x: F.scaled_dot_product_attention(1 / x, x, x), (X,)),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=-m.causal[:2, :2]), (X,)),
        (lambda m, x: m.loose(x), (X,)),
        (lambda m, x: x**-1.0, (X,)),
        (lambda m, x: x.asin(), (X,)),
        (lambda m, x: x[:, :1].std(1), (X,)),
        (lambda m, x: x % x.round(), (X,)),
        (lambda m, x: x.new_full((2, 5), -INF) * 0, (X,)),
        (lambda m, count: 1.0 / (count + 255).to(torch.uint8), (COUNT,)),
        (lambda m, x: 1 / (x.sigmoid() + 0.5).to(torch.int64), (X,)),
    ],
)
def test_values_that_may_not_be(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    assert not range_of(function, *inputs).finite


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda m, x, keep: torch.where(keep, x, INF), Range(up=True)),
        (lambda m, x, keep: torch.where(keep, x, -INF), Range(down=True)),
        (lambda m, x, keep: torch.where(keep, x, NAN), Range(nan=True)),
        (lambda m, x, keep: torch.where(keep, x.sigmoid(), INF), Range(0, 1, up=True)),
        (lambda m, x, keep: -torch.where(keep, x.sigmoid(), INF), Range(-1, 0, down=True)),
        (lambda m, x, keep: torch.where(keep, x.sigmoid(), INF) + 1, Range(1, 2, up=True)),
        (lambda m, x, keep: torch.where(keep, x.sigmoid(), -INF).abs(), Range(0, 1, up=True)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), -INF).relu(), Range(0, 1)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), INF).relu(), Range(0, 1, up=True)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), NAN).relu(), Range(0, 1, nan=True)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), -INF).clamp(min=-3), Range(-1, 1)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), INF).clamp(max=3), Range(-1, 1)),
        (lambda m, x, keep: torch.where(keep, x.tanh(), INF).clamp(min=-3), Range(-1, 1, up=True)),
        (lambda m, x, keep: torch.where(keep, x, NAN).sigmoid(), Range(0, 1, nan=True)),
        (lambda m, x, keep: torch.where(keep, x, INF).sigmoid(), Range(0, 1)),
        (lambda m, x, keep: torch.where(keep, x, INF).sin(), Range(-1, 1, nan=True)),
        (lambda m, x, keep: torch.where(keep, x, -INF).exp(), Range(0, INF)),
        (lambda m, x, keep: torch.where(keep, x, INF).exp(), Range(0, INF, up=True)),
        (lambda m, x, keep: torch.where(keep, x, -INF).square(), Range(0, INF, up=True)),
        (lambda m, x, keep: torch.where(keep, x, INF).softmax(-1), Range(0, 1, nan=True)),
    ],
)
def test_which_values_are_no_numbers(function: Callable[..., Tensor], found: Range) -> None:
    assert range_of(function, X, KEEP) == found


def test_what_cannot_be_zero_may_divide() -> None:
    assert range_of(lambda m, keep: 1.0 / keep.sum(1, keepdim=True).clamp(min=1), KEEP).finite
    assert range_of(lambda m, keep: 1.0 / (keep.sum(1) + 1), KEEP).finite
    assert range_of(lambda m, x: x / x.shape[0], X).finite


@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold(seed: int) -> None:
    functions: list[Any] = [
        lambda m, x: x.clamp(-0.5, 2) - x.sigmoid() * 3,
        lambda m, x: (x.abs() + 1).log2() + (x.square() + 0.25).log(),
        lambda m, x: (F.relu6(x) - 3) * (x.tanh() * 2 + 0.5),
        lambda m, x: torch.rsqrt(x.square().clamp(0.1, 4)) * -1,
        lambda m, x: x.floor().clamp(-1, 1) / (x.cos() + 2),
        lambda m, x: F.avg_pool1d(F.pad(x.sigmoid(), (1, 1), value=3.0), 2) + x.amax(1, keepdim=True).clamp(max=0),
        lambda m, x: (2 - F.hardtanh(x)).pow(2).reciprocal(),
        lambda m, x: torch.maximum(x.sigmoid(), x.tanh()) + x.softmax(0).cumsum(1),
        lambda m, x: (x * 9).to(torch.int32).clamp(-3, 3) // 2 + x.argmax(1, keepdim=True) * 1.5,
    ]
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3
    for function in functions:
        found, values = range_of(function, X), function(Calls(function), x)
        assert found.finite
        assert found.low - 1e-9 <= float(values.min())
        assert float(values.max()) <= found.high + 1e-9
