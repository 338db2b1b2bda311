"""Comparisons where a side is NaN.

TVM's "not equal" asks for two numbers; its simplifier takes anything for equal to itself, and turns around what is negated.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx

from .elementwise import elementwise

__all__ = ["COMPARISONS"]


def _equal(a: Any, b: Any) -> Any:
    return tirx.all(tirx.EQ(a, b), *[_negative(tirx.isnan(side)) for side in (a, b) if _floating(side)])


def _not_equal(a: Any, b: Any) -> Any:
    return tirx.any(tirx.NE(a, b), *[tirx.isnan(side) for side in (a, b) if _floating(side)])


def _floating(x: Any) -> bool:
    return str(x.ty.dtype).startswith("float")


def _not(builder: Any, call: Any) -> Any:
    return builder.call_te(_negated, *call.args, primfunc_name_hint="logical_not")


def _negated(x: Any) -> Any:
    return te.compute(x.shape, lambda *index: _negative(x(*index)), name="negated")


def _negative(condition: Any) -> Any:
    """As a comparison of numbers: ``not a < b`` would become ``b <= a``."""
    return tirx.EQ(condition.astype("int32"), tirx.const(0, "int32"))


COMPARISONS = {
    "relax.equal": elementwise(_equal, "equal"),
    "relax.not_equal": elementwise(_not_equal, "not_equal"),
    "relax.logical_not": _not,
}
