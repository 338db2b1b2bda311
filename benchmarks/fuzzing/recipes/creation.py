"""Tensors made on the spot, joined with computed ones."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .elementwise import operand
from .registry import recipe


@recipe("zeros ones full new_zeros new_ones new_full", weight=3)
def filled(draft: Draft, operator: str) -> Ref:
    x = draft.operand(lambda value: value.dim() > 0)
    shape = list(draft.shape(x))
    axis = draft.axis(x)
    joined = draft.chance(50)
    shape[axis] = draft.integer(1, 3) if joined else draft.pick((shape[axis], 1))
    value = (draft.pick((0.3, 0.0, -1.0)),) if operator.endswith("full") else ()
    if operator.startswith("new_"):
        made = draft.call(f"{operator}.default", x, tuple(shape), *value)
    else:
        made = draft.call(f"{operator}.default", tuple(shape), *value, dtype=torch.float64)
    if joined:
        return draft.call("cat.default", (x, made), axis)
    return draft.call(f"{draft.pick(('add', 'mul'))}.Tensor", x, made)


@recipe("zeros_like ones_like full_like", weight=2)
def filled_like(draft: Draft, operator: str) -> Ref:
    x = operand(draft)
    value = (draft.pick((0.2, 0.0)),) if operator == "full_like" else ()
    made = draft.call(f"{operator}.default", x, *value)
    call = draft.pick(("add.Tensor", "mul.Tensor", "maximum.default"))
    return draft.call(call, x, made)
