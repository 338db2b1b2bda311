"""Numbers that are known only when the model runs: factors made of sizes pass zeros on, and where constants end is told."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reconvene.driver.api import prune

from ..support.models import masked_copy

FREE = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)


class Scaled(nn.Module):
    """linear, `inner`, linear."""

    def __init__(self, inner: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.inner, self.after = nn.Linear(6, 8), inner, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


@pytest.mark.parametrize(
    "inner",
    [
        lambda h: h / h.shape[0] * float(h.size(1)),
        lambda h: h / math.sqrt(h.shape[1] + 1) + h * h.shape[1] ** -0.5,
        lambda h: h * (1 / h.shape[0]) / (2 * h.shape[1] - 1),
        lambda h: h.sum(1, keepdim=True) / h.shape[1] + h / max(h.shape[0] // 2, 1),
        lambda h: h / torch.sqrt(torch.tensor(float(h.shape[1]))),
        lambda h: h * h.sum().item(),
    ],
    ids=["size", "root", "inverse", "mean by hand", "in a tensor", "entry"],
)
def test_a_factor_that_is_never_infinite_passes_zeros_on(inner: Callable[[Tensor], Tensor]) -> None:
    model = Scaled(inner).eval()
    result = prune(model, (torch.randn(2, 5, 6),), dynamic_shapes=FREE)
    assert result.module.before.weight.shape == (4, 6)
    other = torch.randn(3, 4, 6)
    with torch.no_grad():
        expected = masked_copy(model, result.plan.masks)(other.double())
        assert float((expected - result.module(other)).abs().max()) < 1e-5


@pytest.mark.parametrize(
    ("inner", "call"),
    [
        (lambda h: h + h.shape[0], "'add'"),
        (lambda h: h.shape[0] - h, "'rsub'"),
        (lambda h: h / (h.shape[0] - 1), "'div'"),
        (lambda h: h / h.detach().sum().item(), "'div'"),
        (lambda h: h.relu().softmax(1) * h.shape[0], "'softmax'"),
    ],
    ids=["sum", "difference", "size that may be zero", "entry that may be zero", "softmax"],
)
def test_where_constants_end_is_told_with_its_line(inner: Callable[[Tensor], Tensor], call: str) -> None:
    result = prune(Scaled(inner).eval(), (torch.randn(2, 5, 6),), dynamic_shapes=FREE)
    assert result.module.before.weight.shape == (8, 6)
    (told,) = result.report.refusals
    assert f"constant channels are not constant any more after {call} at {__file__}:" in told
