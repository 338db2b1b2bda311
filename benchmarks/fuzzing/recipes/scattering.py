"""Writing at indices: rows along an axis, elements, places, masks."""

from __future__ import annotations

from ..draft import Draft
from ..program import Ref
from .elementwise import stepped
from .registry import recipe


def _written(draft: Draft, x: Ref, axis: int, length: int) -> Ref:
    """What is written: as much of a value like `x`, perhaps of `x` itself."""
    return draft.call("slice.Tensor", draft.like(x, broadcast=False), axis, 0, length)


def _target(draft: Draft) -> tuple[Ref, int, int]:
    """A value, an axis, and how much of that is written."""
    x = draft.operand(lambda value: value.dim() > 0)
    x = draft.fed(x, 1, 40) if draft.rank(x) > 1 else x
    axis = draft.axis(x, 2)
    return x, axis, draft.integer(1, draft.shape(x)[axis])


@recipe("index_add index_copy index_fill", weight=2)
def rows(draft: Draft, operator: str) -> Ref:
    x, axis, length = _target(draft)
    table = draft.store(length, kind="index", high=draft.shape(x)[axis])
    if operator == "index_fill":
        return draft.call("index_fill.int_Scalar", x, axis, table, draft.pick((0.0, 0.5)))
    if operator == "index_copy":  # Which of two equal places is written last is not said.
        table = draft.call("argsort.default", draft.store(length))
    options = {"alpha": draft.pick((1, 0.5))} if operator == "index_add" else {}
    return draft.call(f"{operator}.default", x, axis, table, _written(draft, x, axis, length), **options)


@recipe("scatter scatter_add scatter_reduce", weight=2)
def elements(draft: Draft, operator: str) -> Ref:
    x, axis, length = _target(draft)
    values = _written(draft, x, axis, length)
    if draft.chance(50):
        table = draft.call("argsort.default", values, axis)
    else:
        table = draft.call("argsort.default", draft.store(length))
        table = draft.call("view.default", table, (length, *(1,) * (draft.rank(x) - 1 - axis)))
        table = draft.call("expand.default", table, draft.shape(values))
    if operator == "scatter_reduce":
        reduce = draft.pick(("sum", "prod", "mean", "amax", "amin"))
        return draft.call("scatter_reduce.two", x, axis, table, values, reduce, include_self=draft.chance(50))
    if operator == "scatter_add":
        return draft.call("scatter_add.default", x, axis, table, values)
    if draft.chance(40):
        return draft.call("scatter.value", x, axis, table, draft.pick((0.0, 0.5)))
    if draft.chance(30):
        return draft.call("scatter.reduce", x, axis, table, values, reduce=draft.pick(("add", "multiply")))
    return draft.call("scatter.src", x, axis, table, values)


@recipe("index_put", weight=2)
def places(draft: Draft, operator: str) -> Ref:
    x, axis, length = _target(draft)
    if draft.chance(40):
        mask = draft.call("gt.Scalar", stepped(draft, draft.like(x, broadcast=False)), 0.3)
        return draft.call("index_put.default", x, (mask,), draft.call("sum.default", x))
    table = draft.call("argsort.default", draft.store(length))
    values = _written(draft, x, axis, length)
    return draft.call("index_put.default", x, (None,) * axis + (table,), values, draft.chance(50))
