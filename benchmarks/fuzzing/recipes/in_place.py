"""Operators that write into their operand, and one that no rule knows."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .elementwise import back, stepped
from .layers import need
from .registry import recipe


@recipe("aten.relu_ aten.sigmoid_ aten.add_ aten.mul_ aten.copy_", weight=3)
def in_place(draft: Draft, operator: str) -> Ref:
    """A fresh value is changed, all of it or through a view, and both names are read."""
    x = draft.call("mul.Tensor", draft.operand(lambda value: value.dim() > 0), 1.5)
    need(draft.is_plain(x), "a view of an input")
    target = x
    if draft.chance(40):
        axis = draft.axis(x, 2)
        target = draft.call("slice.Tensor", x, axis, 0, draft.integer(1, draft.shape(x)[axis] - 1))
    if operator in ("add_", "mul_"):
        number = draft.pick((0.25, 2.0))
        made = draft.call(f"{operator}.Tensor", target, number)
    elif operator == "copy_":
        made = draft.call("copy_.default", target, draft.like(target))
    else:
        made = draft.call(f"{operator}.default", target)
    if target == x:
        return made
    return draft.call("add.Tensor", x, 1.0)


@recipe("aten.__iand__ aten.__ior__ aten.__ixor__ aten.__ilshift__ aten.__irshift__", weight=2)
def in_place_bits(draft: Draft, operator: str) -> Ref:
    """Whole numbers or truth values are changed."""
    x = stepped(draft, draft.operand(lambda value: value.dim() > 0))
    if "shift" in operator or draft.chance(40):
        made = draft.call(f"{operator}.Scalar", draft.call("to.dtype", x, draft.pick((torch.int64, torch.int32))), 3)
    else:
        other = draft.call("lt.Scalar", stepped(draft, draft.like(x, broadcast=False)), 0.3)
        made = draft.call(f"{operator}.Tensor", draft.call("gt.Scalar", x, 0.1), other)
    return back(draft, made)


@recipe("aten.gt_ aten.lt_ aten.eq_ aten.logical_not_", weight=1)
def in_place_truths(draft: Draft, operator: str) -> Ref:
    """What comes out of a comparison is written as numbers."""
    x = stepped(draft, draft.operand(lambda value: value.dim() > 0))
    x = draft.call("clone.default", x)
    return (
        draft.call("logical_not_.default", x)
        if operator == "logical_not_"
        else draft.call(f"{operator}.Scalar", x, 0.2)
    )


@recipe("aten.tril aten.triu", weight=1)
def barrier(draft: Draft, operator: str) -> Ref:
    """An operator without a rule."""
    return draft.call(f"{operator}.default", draft.operand(lambda value: value.dim() > 1))
