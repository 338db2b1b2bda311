"""Maxima and minima in which NaN wins, and which are infinite where every element is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import te, tirx

from ..kernels.vectors import Vectors
from .axes import over, reduced_axes
from .elementwise import elementwise

__all__ = ["EXTREMA", "arg_extreme", "max_pool"]

Expression = Any


def larger(a: Expression, b: Expression) -> Expression:
    """The larger of two numbers, or NaN where one is NaN."""
    return Vectors(1).maximum(a, b) if _floating(a) else tirx.max(a, b)


def smaller(a: Expression, b: Expression) -> Expression:
    """The smaller of two numbers, or NaN where one is NaN."""
    return Vectors(1).minimum(a, b) if _floating(a) else tirx.min(a, b)


def _floating(x: Expression) -> bool:
    return str(x.ty.dtype).startswith("float")


def _least(dtype: Any) -> Expression:
    return tirx.const(-math.inf, str(dtype)) if str(dtype).startswith("float") else tirx.min_value(str(dtype))


def _greatest(dtype: Any) -> Expression:
    return tirx.const(math.inf, str(dtype)) if str(dtype).startswith("float") else tirx.max_value(str(dtype))


_LARGEST = te.comm_reducer(larger, _least, name="largest")
_SMALLEST = te.comm_reducer(smaller, _greatest, name="smallest")


def _reduced(reducer: Any, name: str) -> Callable[[Any, Any], Any]:
    def extreme(x: Any, axes: Sequence[int] | None, keepdims: bool) -> Any:
        return over(x, reduced_axes(x, axes), keepdims, lambda at, loops: reducer(x(*at), axis=loops), name)

    def legalize(builder: Any, call: Any) -> Any:
        return builder.call_te(extreme, call.args[0], call.attrs.axis, call.attrs.keepdims, primfunc_name_hint=name)

    return legalize


def arg_extreme(x: Any, axis: int, keepdims: bool, largest: bool) -> list[Any]:
    """Indices (int64) and values of the extreme elements along an axis: of equal ones the first, and of NaNs too."""

    def better(a: Expression, b: Expression) -> Expression:
        ahead = a > b if largest else a < b
        same = tirx.EQ(a, b)
        if _floating(a):
            ahead = tirx.any(ahead, tirx.all(tirx.isnan(a), tirx.Not(tirx.isnan(b))))
            same = tirx.any(same, tirx.all(tirx.isnan(a), tirx.isnan(b)))
        return ahead, same

    def combined(first: Sequence[Expression], second: Sequence[Expression]) -> tuple[Expression, Expression]:
        ahead, same = better(first[1], second[1])
        chosen = tirx.any(ahead, tirx.all(same, first[0] < second[0]))
        return tuple(tirx.Select(chosen, a, b) for a, b in zip(first, second, strict=True))

    def identity(index_type: Any, dtype: Any) -> tuple[Expression, Expression]:
        return tirx.max_value(str(index_type)), (_least if largest else _greatest)(dtype)

    reducer = te.comm_reducer(combined, identity, name="arg_extreme")

    def element(at: Any, loops: list[Any]) -> Any:
        return reducer((tirx.Cast("int64", at[axis]), x(*at)), axis=loops)

    axis %= len(x.shape)
    return over(x, [axis], keepdims, element, "arg_extreme")


def max_pool(x: Any, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
             shape: Sequence[int]) -> Any:  # fmt: skip
    """Over the last axes, as many as the window has; what lies outside is minus infinity. `shape` is the result's."""
    lead = len(x.shape) - len(window)
    loops = [te.reduce_axis((0, extent), name=f"k{number}") for number, extent in enumerate(window)]

    def element(*index: Any) -> Expression:
        places = [
            at * step + loop * apart - before
            for at, step, loop, apart, before in zip(index[lead:], stride, loops, dilation, padding, strict=False)
        ]
        inside = tirx.all(*[
            condition
            for place, extent in zip(places, x.shape[lead:], strict=True)
            for condition in (place >= 0, place < extent)
        ])  # fmt: skip
        pixel = tirx.if_then_else(inside, x(*index[:lead], *places), _least(x.dtype))
        return _LARGEST(pixel, axis=loops)

    return te.compute(shape, element, name="max_pool")


def _pooled(axes: int) -> Callable[[Any, Any], Any]:
    def legalize(builder: Any, call: Any) -> Any:
        attrs = call.attrs
        numbers = [
            [int(value) for value in given] for given in (attrs.pool_size, attrs.strides, attrs.padding, attrs.dilation)
        ]
        shape = [int(extent) for extent in call.ty.shape]
        return builder.call_te(max_pool, call.args[0], *numbers, shape, primfunc_name_hint=f"max_pool{axes}d")

    return legalize


def _clipped(builder: Any, call: Any) -> Any:
    low, high = (float(bound.value) for bound in call.args[1:3])

    def clip(x: Any) -> Any:
        def element(*index: Any) -> Expression:
            value = x(*index)
            value = value if low == -math.inf else larger(tirx.const(low, x.dtype), value)
            return value if high == math.inf else smaller(tirx.const(high, x.dtype), value)

        return te.compute(x.shape, element, name="clip")

    return builder.call_te(clip, call.args[0], primfunc_name_hint="clip")


def _relu(builder: Any, call: Any) -> Any:
    def relu(x: Any) -> Any:
        return te.compute(x.shape, lambda *index: larger(tirx.const(0, x.dtype), x(*index)), name="relu")

    return builder.call_te(relu, call.args[0], primfunc_name_hint="relu")


EXTREMA = {
    "relax.max": _reduced(_LARGEST, "max"),
    "relax.min": _reduced(_SMALLEST, "min"),
    "relax.maximum": elementwise(larger, "maximum"),
    "relax.minimum": elementwise(smaller, "minimum"),
    "relax.clip": _clipped,
    "relax.nn.relu": _relu,
    "relax.nn.max_pool1d": _pooled(1),
    "relax.nn.max_pool2d": _pooled(2),
    "relax.nn.max_pool3d": _pooled(3),
}
