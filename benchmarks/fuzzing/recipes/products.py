"""Products of computed tensors, and attention."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .registry import recipe


def _tokens(draft: Draft, rank: int = 3) -> Ref:
    return draft.of_rank(rank)


def _projected(draft: Draft, x: Ref, width: int) -> Ref:
    """A linear layer onto `width` features."""
    size = draft.shape(x)[-1]
    return draft.call("linear.default", x, draft.weight(width, size, fan_in=size), draft.optional(width))


def _three(draft: Draft, x: Ref, width: int) -> tuple[Ref, Ref, Ref]:
    """Query, key and value."""
    query, key = _projected(draft, x, width), _projected(draft, x, width)
    return query, key, _projected(draft, x, draft.pick((width, draft.width())))


@recipe("matmul bmm mm mv", weight=5)
def products(draft: Draft, operator: str) -> Ref:
    rank = {"matmul": draft.pick((3, 4, 2)), "bmm": 3}.get(operator, 2)
    x = _tokens(draft, rank)
    query, key, value = _three(draft, x, draft.width())
    if operator == "mv":
        row = draft.call("select.int", key, 0, 0)
        return draft.call("mv.default", query, row)
    call = f"{operator}.default"
    kind = draft.integer(0, 2)
    if kind == 2 and operator == "matmul":
        return draft.call(
            call, query, draft.weight(draft.shape(query)[-1], draft.width(), fan_in=draft.shape(query)[-1])
        )
    if kind == 1:
        return draft.call(call, draft.call("transpose.int", query, -1, -2), value)
    scores = draft.call(call, query, draft.call("transpose.int", key, -1, -2))
    if operator != "mm" and draft.rank(scores) == 3 and draft.chance(25):
        batch, length = draft.shape(scores)[::2]
        hidden = draft.call("logical_not.default", draft.call("unsqueeze.default", draft.mask(batch, length), 1))
        scores = draft.call("masked_fill.Scalar", scores, hidden, draft.pick((float("-inf"), -1e9)))
        scores = draft.call("softmax.int", scores, -1)
        return draft.call(call, scores, value)
    if draft.chance(60):
        scores = draft.call("softmax.int", scores, -1)
    return draft.call(call, scores, value) if draft.chance(80) else scores


@recipe("einsum", weight=3)
def einsum(draft: Draft, operator: str) -> Ref:
    x = _tokens(draft)
    query, key, value = _three(draft, x, draft.width())
    kind = draft.integer(0, 3)
    if kind == 0:
        scores = draft.call("einsum.default", "bqc, bkc -> bqk", (query, key))
        return draft.call("einsum.default", "bqk,bkc->bqc", (draft.call("softmax.int", scores, -1), value))
    if kind == 1:
        return draft.call("einsum.default", "bqc->bcq", (value,))
    if kind == 2:
        size = draft.shape(value)[-1]
        return draft.call("einsum.default", "bqc,dc->bqd", (value, draft.weight(draft.width(), size, fan_in=size)))
    return draft.call("einsum.default", "bqc,bqd->bcd", (query, value))


@recipe("scaled_dot_product_attention", weight=4)
def attention(draft: Draft, operator: str) -> Ref:
    x = _tokens(draft)
    batch, length = draft.shape(x)[:2]
    heads, each = draft.pick((2, 1, 4)), draft.pick((2, 3, 1))
    few = draft.pick((heads, heads, 1)) if heads > 1 else heads
    wide = draft.pick((each, each, 4))

    def split(width: int, count: int) -> Ref:
        made = draft.call("reshape.default", _projected(draft, x, width * count), (batch, length, count, width))
        return draft.call("transpose.int", made, 1, 2)

    query, key, value = split(each, heads), split(each, few), split(wide, few)
    kind = draft.integer(0, 5)
    mask: Ref | None = None
    if kind > 3:
        mask = draft.call("reshape.default", draft.mask(batch, length), (batch, 1, 1, length))
    if kind == 5:
        hidden = draft.call("logical_not.default", mask)
        zeros = draft.call("zeros.default", (batch, 1, length, length), dtype=torch.float64)
        mask = draft.call("masked_fill.Scalar", zeros, hidden, draft.pick((float("-inf"), -1e9)))
    if kind == 1:
        mask = draft.store(length, length, kind="truth")
    if kind == 2:
        mask = draft.store(length, length)
    made = draft.call(
        "scaled_dot_product_attention.default", query, key, value, mask, 0.0, kind == 3, enable_gqa=few != heads
    )
    if draft.chance(20):
        return made
    turned = draft.call("transpose.int", made, 1, 2)
    return draft.call("reshape.default", turned, (batch, length, heads * wide))
