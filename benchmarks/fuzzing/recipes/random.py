"""Operators that draw numbers: no rule makes fewer of them, and those drawn later have to be the same."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .elementwise import operand
from .registry import recipe


@recipe("aten.randn_like aten.rand_like aten.bernoulli aten.randn", weight=1)
def noise(draft: Draft, operator: str) -> Ref:
    """Noise of the operand's shape, or of its last axis, added or multiplied."""
    x = operand(draft)
    if operator == "randn":
        drawn = draft.call("randn.default", draft.shape(x)[-1:], dtype=torch.float64)
    else:
        drawn = draft.call(f"{operator}.default", draft.call("sigmoid.default", x) if operator == "bernoulli" else x)
    return draft.call(draft.pick(("add.Tensor", "mul.Tensor")), x, drawn)


@recipe("aten.native_dropout", weight=1)
def dropout_in_training(draft: Draft, operator: str) -> Ref:
    """Dropout that is switched on."""
    return draft.items(draft.call("native_dropout.default", operand(draft), 0.3, True))[0]
