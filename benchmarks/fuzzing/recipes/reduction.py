"""Reductions, softmax and scans."""

from __future__ import annotations

import torch

from ..draft import Draft
from ..program import Ref
from .elementwise import back, operand, stepped
from .registry import recipe


def _axes(draft: Draft, x: Ref) -> tuple[int, ...]:
    """One axis, or all from the third on, or two."""
    axis = draft.axis(x)
    kind = draft.integer(0, 2)
    if kind == 1 and draft.rank(x) > 2:
        return tuple(range(2, draft.rank(x)))
    return (axis,) if kind != 2 or axis == draft.rank(x) - 1 else (axis, -1)


def _source(draft: Draft) -> Ref:
    return draft.operand(lambda value: value.dim() > 0) if draft.chance(50) else _with_axis(draft)


def _with_axis(draft: Draft) -> Ref:
    x = operand(draft)
    return x if draft.rank(x) else draft.with_rank(x, 1)


@recipe("mean sum nanmean nansum amax amin", weight=6)
def plain(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    if draft.chance(10) and operator in ("mean", "sum"):
        return draft.call(f"{operator}.default", x)
    overload = {"mean": "dim", "sum": "dim_IntList"}.get(operator, "default")
    return draft.call(f"{operator}.{overload}", x, _axes(draft, x), draft.chance(60))


@recipe("aten.sum aten.mean", weight=2)
def shown(draft: Draft, operator: str) -> Ref:
    """What a mask shows of every row, summed or divided by how much that is: nothing, perhaps."""
    x = operand(draft)
    x = x if draft.rank(x) > 2 else draft.with_rank(x, 3)
    batch, length, rest = draft.shape(x)[0], draft.shape(x)[-2], draft.rank(x) - 2
    mask = draft.call("reshape.default", draft.mask(batch, length), (batch, *(1,) * (rest - 1), length, 1))
    kept = draft.call("mul.Tensor", x, draft.call("to.dtype", mask, torch.float64))
    if operator == "mean":
        return draft.call("mean.dim", kept, (draft.rank(x) - 2,), draft.chance(50))
    total = draft.call("sum.dim_IntList", kept, (draft.rank(x) - 2,), True)
    count = draft.call("sum.dim_IntList", mask, (draft.rank(x) - 2,), True)
    if draft.chance(60):
        count = draft.call("clamp_min.default", count, 1)
    if draft.chance(40):
        return draft.call("mul.Tensor", total, draft.call("reciprocal.default", count))
    return draft.call("div.Tensor", total, draft.call("to.dtype", count, torch.float64))


@recipe("max min", weight=3)
def extremum(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    kind = draft.integer(0, 9)
    if kind == 8:
        return draft.call(f"{operator}.default", x)
    if kind == 9:
        return draft.call(f"{operator}.other", x, draft.like(x))
    return draft.items(draft.call(f"{operator}.dim", x, draft.axis(x), draft.chance(60)))[0]


@recipe("argmax argmin any all", weight=2)
def positions(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    if operator.startswith("arg"):
        return back(draft, draft.call(f"{operator}.default", x, draft.axis(x), draft.chance(60)))
    truth = draft.call("gt.Scalar", stepped(draft, x), 0.3)
    return back(draft, draft.call(f"{operator}.dim", truth, draft.axis(x), draft.chance(60)))


@recipe("linalg_vector_norm norm", weight=2)
def norms(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    order = draft.pick((2, 1, float("inf"), 3))
    if operator == "norm":
        return draft.call("norm.ScalarOpt_dim", x, order, _axes(draft, x), draft.chance(60))
    return draft.call("linalg_vector_norm.default", x, order, _axes(draft, x), draft.chance(60))


@recipe("var std var_mean std_mean prod logsumexp", weight=3)
def statistics(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    axes, keep = _axes(draft, x), draft.chance(60)
    if operator == "prod":
        return draft.call("prod.dim_int", x, axes[0], keep)
    if operator == "logsumexp":
        return draft.call("logsumexp.default", x, axes, keep)
    made = draft.call(f"{operator}.correction", x, axes, correction=draft.pick((0, 1)), keepdim=keep)
    if not operator.endswith("_mean"):
        return made
    first, second = draft.items(made)
    return draft.call("add.Tensor", first, second)


@recipe("softmax log_softmax _softmax _log_softmax cumsum cumprod logcumsumexp", weight=3)
def along(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    axis = draft.axis(x)
    if "cum" in operator:
        return draft.call(f"{operator}.default", x, axis)
    if operator.startswith("_"):
        return draft.call(f"{operator}.default", x, axis, False)
    return draft.call(f"{operator}.int", x, axis)


@recipe("cummax cummin", weight=2)
def records(draft: Draft, operator: str) -> Ref:
    x = _source(draft)
    return draft.items(draft.call(f"{operator}.default", x, draft.axis(x)))[0]
