"""Operators that write into their operand, and one that no rule knows."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .layers import need
from .registry import recipe


@recipe("aten.relu_ aten.sigmoid_ aten.add_ aten.mul_", weight=3)
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
    else:
        made = draft.call(f"{operator}.default", target)
    if target == x:
        return made
    return draft.call("add.Tensor", x, 1.0)


@recipe("aten.tril aten.triu", weight=1)
def barrier(draft: Draft, operator: str) -> Ref:
    """An operator without a rule."""
    return draft.call(f"{operator}.default", draft.operand(lambda value: value.dim() > 1))
