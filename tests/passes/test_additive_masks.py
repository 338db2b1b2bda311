"""Which inputs of a graph are masks that are added to scores: whatever they hold, they may hide with minus infinity."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconvene.frontend.capture import capture
from reconvene.passes.additive_masks import additive_masks

QUERY, MASK = torch.randn(2, 3, 4), torch.zeros(2, 3, 3)


class Attending(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, query: Tensor, mask: Tensor) -> Tensor:
        return self.function(query, mask)


def scores(query: Tensor) -> Tensor:
    return query @ query.transpose(1, 2)


@pytest.mark.parametrize(
    "function",
    [
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m),
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m * 2.0),
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m[:, :1]),
        lambda q, m: (scores(q) + m).softmax(-1) @ q,
        lambda q, m: ((m + scores(q)) / 2.0).softmax(-1) @ q,
        lambda q, m: (scores(q) + m.unsqueeze(0)[0]).softmax(-1) @ q,
        lambda q, m: torch.baddbmm(m, q, q.transpose(1, 2)).softmax(-1) @ q,
        lambda q, m: (scores(q) + m).softmax(-1) @ q * q.new_ones(m.shape[0]).sum(),
    ],
)
def test_what_is_added_to_scores_and_nothing_else_is_a_mask(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    graph = capture(Attending(function).eval(), (QUERY, MASK))
    found = additive_masks(graph)
    assert {place: node.name for place, node in found.items()} == {1: "mask"}


@pytest.mark.parametrize(
    "function",
    [
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m * -2.0),
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m.exp()),
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m) + m.sum(),
        lambda q, m: (scores(q) + m) @ q,
        lambda q, m: m.softmax(-1) @ q,
        lambda q, m: (scores(q) - m).softmax(-1) @ q,
        lambda q, m: (scores(q) * m).softmax(-1) @ q,
        lambda q, m: F.scaled_dot_product_attention(q, q, m @ q),
        lambda q, m: m + scores(q),
        lambda q, m: scores(q).softmax(-1),
        lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m > 0),
        lambda q, m: torch.baddbmm(m, m, q @ q.transpose(1, 2)).softmax(-1),
    ],
)
def test_what_else_is_read_is_none(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert additive_masks(capture(Attending(function).eval(), (QUERY, MASK))) == {}
