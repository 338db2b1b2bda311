"""Functions of single elements, on vectors: the vocabulary of fused epilogues and elementwise kernels.

`exp` is a polynomial here, because the C library's takes one lane at a time. Its relative error is below
2e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from .loops import number

__all__ = ["FUNCTIONS", "apply"]

Expression = Any


def apply(function: str, parameters: Sequence[float], values: Sequence[Expression], lanes: int) -> Expression:
    """The value of `function` (a key of `FUNCTIONS`) for vectors of `lanes`."""
    return FUNCTIONS[function](lanes, *parameters, *values)


def _exp(lanes: int, x: Expression) -> Expression:
    """``2**k * p(r)`` with ``x = k ln 2 + r`` and Cephes' polynomial for ``|r| <= ln 2 / 2``."""
    x = tirx.max(tirx.min(x, number(88.0, lanes)), number(-87.0, lanes))
    whole = tirx.floor(x * number(1.0 / math.log(2.0), lanes) + number(0.5, lanes))
    rest = x - whole * number(0.693359375, lanes) - whole * number(-2.12194440e-4, lanes)
    polynomial = number(1.9875691500e-4, lanes)
    for coefficient in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        polynomial = polynomial * rest + number(coefficient, lanes)
    mantissa = polynomial * rest * rest + rest + number(1.0, lanes)
    int_type = f"int32x{lanes}" if lanes > 1 else "int32"
    float_type = f"float32x{lanes}" if lanes > 1 else "float32"
    exponent = tirx.Cast(int_type, whole) + number(127, lanes, "int32")
    scale = tirx.reinterpret(float_type, exponent << number(23, lanes, "int32"))
    return mantissa * scale


def _sigmoid(lanes: int, x: Expression) -> Expression:
    one = number(1.0, lanes)
    return one / (one + _exp(lanes, number(0.0, lanes) - x))


def _tanh(lanes: int, x: Expression) -> Expression:
    one = number(1.0, lanes)
    return one - number(2.0, lanes) / (_exp(lanes, x * number(2.0, lanes)) + one)


def _clip(lanes: int, low: float, high: float, x: Expression) -> Expression:
    if low > -math.inf:
        x = tirx.max(x, number(low, lanes))
    return tirx.min(x, number(high, lanes)) if high < math.inf else x


def _leaky(lanes: int, slope: float, x: Expression) -> Expression:
    zero = number(0.0, lanes)
    return tirx.max(x, zero) + number(slope, lanes) * tirx.min(x, zero)


FUNCTIONS: dict[str, Callable[..., Expression]] = {
    "relu": lambda lanes, x: tirx.max(x, number(0.0, lanes)),
    "clip": _clip,
    "leaky_relu": _leaky,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "silu": lambda lanes, x: x * _sigmoid(lanes, x),
    "negative": lambda lanes, x: number(0.0, lanes) - x,
    "abs": lambda lanes, x: tirx.max(x, number(0.0, lanes) - x),
    "add": lambda lanes, a, b: a + b,
    "subtract": lambda lanes, a, b: a - b,
    "multiply": lambda lanes, a, b: a * b,
    "maximum": lambda lanes, a, b: tirx.max(a, b),
    "minimum": lambda lanes, a, b: tirx.min(a, b),
}
"""Every function by name; called with the lanes, the literal parameters and then the vectors.

All give a finite value for finite small values, which the unused lanes of a last channel block hold: the next
convolution multiplies them by zero weights, and a NaN or infinity would come through. So no exp, log or
division.
"""
