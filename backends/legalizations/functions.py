"""Functions of single elements: the C library's, which are right to the last bits near zero, far out, and for NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tvm import te, tirx

__all__ = ["FUNCTIONS", "elu", "erfc", "exp2", "expm1", "hypot", "log1p", "mapped", "shifted_left", "shifted_right"]

Expression = Any


def _library(name: str) -> Callable[..., Expression]:
    """A function of the C library. Halves are computed in float32."""

    def function(*operands: Expression) -> Expression:
        dtype = str(operands[0].ty.dtype)
        if dtype == "float64":
            return tirx.call_pure_extern(dtype, name, *operands)
        wide = [operand if dtype == "float32" else operand.astype("float32") for operand in operands]
        found = tirx.call_pure_extern("float32", f"{name}f", *wide)
        return found if dtype == "float32" else found.astype(dtype)

    function.__name__ = name
    return function


cosh, sinh, tanh, atanh = (_library(name) for name in ("cosh", "sinh", "tanh", "atanh"))
erf, erfc, exp2, expm1, log1p = (_library(name) for name in ("erf", "erfc", "exp2", "expm1", "log1p"))
hypot = _library("hypot")


def elu(x: Expression, alpha: float, scale: float, input_scale: float) -> Expression:
    """``celu`` and ``selu`` are this one with other numbers."""
    below = expm1(x * _like(x, input_scale)) * _like(x, alpha * scale)
    return tirx.Select(x > _like(x, 0), x * _like(x, scale), below)


def softplus(x: Expression, beta: float, threshold: float) -> Expression:
    """``log(1 + exp(beta x)) / beta``; `x` where ``beta x`` is above the threshold."""
    scaled = x * _like(x, beta)
    return tirx.Select(scaled > _like(x, threshold), x, log1p(tirx.exp(scaled)) / _like(x, beta))


def gelu(x: Expression) -> Expression:
    """``1 + erf(u)`` is ``erfc(-u)``, which does not cancel far below zero."""
    return x * (erfc(x * _like(x, -math.sqrt(0.5))) * _like(x, 0.5))


def gelu_tanh(x: Expression) -> Expression:
    """``(1 + tanh(u)) / 2`` is the sigmoid of ``2 u``, which does not cancel far below zero."""
    inner = x + x * x * x * _like(x, 0.044715)
    return x * sigmoid(inner * _like(x, 2 * math.sqrt(2 / math.pi)))


def silu(x: Expression) -> Expression:
    return x * sigmoid(x)


def sigmoid(x: Expression) -> Expression:
    return _like(x, 1) / (_like(x, 1) + tirx.exp(_like(x, 0) - x))


def shifted_left(x: Expression, places: Expression) -> Expression:
    """Zero where there are not so many bits, as in PyTorch."""
    bits = tirx.const(x.ty.dtype.bits, str(x.ty.dtype))
    return tirx.Select(_beyond(places, bits), _like(x, 0), x << places)


def shifted_right(x: Expression, places: Expression) -> Expression:
    """The sign is what moves in; nothing else is left where there are not so many bits."""
    bits = tirx.const(x.ty.dtype.bits, str(x.ty.dtype))
    return x >> tirx.Select(_beyond(places, bits), bits - 1, places)


def _beyond(places: Expression, bits: Expression) -> Expression:
    return tirx.any(places < _like(places, 0), places >= bits)


def mapped(function: Callable[..., Expression], name: str) -> Callable[..., Any]:
    """`function` of single elements, with numbers after them, as one of tensors of the same shape."""

    def over(*operands: Any) -> Any:
        tensors = [operand for operand in operands if isinstance(operand, te.Tensor)]
        numbers = operands[len(tensors) :]

        def element(*index: Any) -> Expression:
            return function(*[tensor(*index) for tensor in tensors], *numbers)

        return te.compute(tensors[0].shape, element, name=name)

    return over


def _legalized(function: Callable[..., Expression], *attributes: str) -> Callable[[Any, Any], Any]:
    name = f"tir_{getattr(function, '__name__', 'function')}"  # A kernel must not be called as the library's function.

    def legalize(builder: Any, call: Any) -> Any:
        numbers = [float(getattr(call.attrs, attribute)) for attribute in attributes]
        return builder.call_te(mapped(function, name), *call.args, *numbers, primfunc_name_hint=name)

    return legalize


def _like(x: Expression, value: float) -> Expression:
    return tirx.const(value, str(x.ty.dtype))


FUNCTIONS = {
    "relax.tanh": _legalized(tanh),
    "relax.sinh": _legalized(sinh),
    "relax.cosh": _legalized(cosh),
    "relax.atanh": _legalized(atanh),
    "relax.erf": _legalized(erf),
    "relax.sigmoid": _legalized(sigmoid),
    "relax.nn.gelu": _legalized(gelu),
    "relax.nn.gelu_tanh": _legalized(gelu_tanh),
    "relax.nn.silu": _legalized(silu),
    "relax.nn.softplus": _legalized(softplus, "beta", "threshold"),
}
