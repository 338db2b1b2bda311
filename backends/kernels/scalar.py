"""Functions of single elements, on vectors: the vocabulary of fused epilogues and elementwise kernels.

`exp` and `tanh` are polynomials here, because the C library's take one lane at a time. Their relative errors are below
5e-7, and zero, infinities and NaN give what they give in PyTorch. Maxima and minima keep NaN, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tvm import tirx

from .codes import CODES
from .vectors import Vectors

__all__ = ["FUNCTIONS", "apply", "exponential", "rounds_once"]

Expression = Any


def apply(function: str, parameters: Sequence[float], values: Sequence[Expression], vectors: Vectors) -> Expression:
    """The value of `function` (a key of `FUNCTIONS`) for `values`, which are vectors."""
    return FUNCTIONS[function](vectors, *parameters, *values)


def rounds_once(functions: Iterable[str]) -> bool:
    """Whether each of some functions rounds its result once at most, so that it may be computed in the type of its operands."""
    return all(function in _SINGLE for function in functions)


def exponential(vectors: Vectors, x: Expression) -> Expression:
    """``2**k * p(r)`` with ``x = k ln 2 + r`` and Cephes' polynomial for ``|r| <= ln 2 / 2``.

    As ``2**(k - 1) * 2 p(r)``, so that it ends in infinity; below -87 it is zero.
    """
    x = vectors.maximum(vectors.number(-87.3), vectors.minimum(vectors.number(89.0), x))
    fraction, scale = _power(vectors, x, 2)
    return (fraction + vectors.number(2.0)) * scale


def _power(vectors: Vectors, x: Expression, factor: int = 1) -> tuple[Expression, Expression]:
    """`factor` times ``p(r) - 1``, and ``2**k`` divided by it."""
    whole = tirx.floor(x * vectors.number(1.0 / math.log(2.0)) + vectors.number(0.5))
    rest = x - whole * vectors.number(0.693359375) - whole * vectors.number(-2.12194440e-4)
    coefficients = (
        1.9875691500e-4,
        1.3981999507e-3,
        8.3334519073e-3,
        4.1665795894e-2,
        1.6666665459e-1,
        5.0000001201e-1,
    )
    polynomial = _polynomial(vectors, rest, *(factor * coefficient for coefficient in coefficients))
    linear = rest if factor == 1 else rest + rest
    int_type = f"int32x{vectors.lanes}" if vectors.lanes > 1 else "int32"
    float_type = f"{vectors.dtype}x{vectors.lanes}" if vectors.lanes > 1 else vectors.dtype
    exponent = tirx.Cast(int_type, whole) + vectors.number(128 - factor, "int32")
    scale = tirx.reinterpret(float_type, exponent << vectors.number(23, "int32"))
    return polynomial * rest * rest + linear, scale


def _sigmoid(vectors: Vectors, x: Expression) -> Expression:
    one = vectors.number(1.0)
    return one / (one + exponential(vectors, vectors.number(0.0) - x))


def _tanh(vectors: Vectors, x: Expression) -> Expression:
    """Eigen's quotient of polynomials, divided by the constant of the lower one; near zero `x`."""
    x = _between(vectors, -8.7, 8.7, x)
    square = x * x
    constant = 4.89352518554385e-03
    upper = _polynomial(
        vectors, square,
        *(coefficient / constant for coefficient in (
            -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
            1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
        )),
    )  # fmt: skip
    lower = _polynomial(
        vectors, square,
        *(coefficient / constant for coefficient in (
            1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, constant,
        )),
    )  # fmt: skip
    quotient = _between(vectors, -1.0, 1.0, x * upper / lower)
    return tirx.Select(tirx.abs(x) < vectors.number(4e-4), x, quotient)


def _between(vectors: Vectors, low: float, high: float, x: Expression) -> Expression:
    return vectors.minimum(vectors.number(high), vectors.maximum(vectors.number(low), x))


def _polynomial(vectors: Vectors, x: Expression, *coefficients: float) -> Expression:
    """Horner's scheme; the highest power's coefficient first."""
    value = vectors.number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + vectors.number(coefficient)
    return value


def _erf(vectors: Vectors, x: Expression) -> Expression:
    """Eigen's quotient of polynomials, which is 1 to the last bit from 4 on; divided as that of `_tanh`."""
    x = _between(vectors, -4.0, 4.0, x)
    square = x * x
    constant = -1.42647390514189e-02
    upper = _polynomial(
        vectors, square,
        *(coefficient / constant for coefficient in (
            -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
            -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
        )),
    )  # fmt: skip
    lower = _polynomial(
        vectors, square,
        *(coefficient / constant for coefficient in (
            -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, constant,
        )),
    )  # fmt: skip
    return x * upper / lower


def _gelu(vectors: Vectors, x: Expression) -> Expression:
    half = x * vectors.number(0.5)
    return half + half * _erf(vectors, x * vectors.number(math.sqrt(0.5)))


def _gelu_tanh(vectors: Vectors, x: Expression) -> Expression:
    """``(1 + tanh(u)) / 2`` is the sigmoid of ``2 u``, which does not cancel far below zero."""
    inner = x + x * x * x * vectors.number(0.044715)
    return x * _sigmoid(vectors, inner * vectors.number(2 * math.sqrt(2 / math.pi)))


def _clip(vectors: Vectors, low: float, high: float, x: Expression) -> Expression:
    if low > -math.inf:
        x = vectors.maximum(vectors.number(low), x)
    return vectors.minimum(vectors.number(high), x) if high < math.inf else x


def _leaky(vectors: Vectors, slope: float, x: Expression) -> Expression:
    zero = vectors.number(0.0)
    return vectors.maximum(zero, x) + vectors.number(slope) * vectors.minimum(zero, x)


def _elu(vectors: Vectors, alpha: float, scale: float, input_scale: float, x: Expression) -> Expression:
    """``scale * x``, and ``scale * alpha * (exp(input_scale * x) - 1)`` below zero; infinities are as far out as any."""
    zero = vectors.number(0.0)
    below = _less_one(vectors, vectors.minimum(zero, x) * vectors.number(input_scale))
    return vectors.maximum(zero, x) * vectors.number(scale) + below * vectors.number(alpha * scale)


def _less_one(vectors: Vectors, x: Expression) -> Expression:
    """``exp(x) - 1`` of what is not above zero, as ``2**k (p(r) - 1) + (2**k - 1)``, which does not cancel."""
    fraction, scale = _power(vectors, vectors.maximum(vectors.number(-87.3), x))
    return fraction * scale + (scale - vectors.number(1.0))


FUNCTIONS: dict[str, Callable[..., Expression]] = {
    "relu": lambda vectors, x: vectors.maximum(vectors.number(0.0), x),
    "clip": _clip,
    "leaky_relu": _leaky,
    "elu": _elu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": lambda vectors, x: x * _sigmoid(vectors, x),
    "negative": lambda vectors, x: x * vectors.number(-1.0),
    "abs": lambda vectors, x: tirx.abs(x),
    "add": lambda vectors, a, b: a + b,
    "subtract": lambda vectors, a, b: a - b,
    "multiply": lambda vectors, a, b: a * b,
    "maximum": lambda vectors, a, b: vectors.maximum(a, b),
    "minimum": lambda vectors, a, b: vectors.minimum(a, b),
    **CODES,
}
"""Every function by name; called with the lanes, the literal parameters and then the vectors.

All give a finite value for finite small values, which the unused lanes of a last channel block hold: the next
convolution multiplies them by zero weights, and a NaN or infinity would come through. So no exp, log or
division.
"""

_SINGLE = frozenset({"relu", "clip", "negative", "abs", "add", "subtract", "multiply", "maximum", "minimum"})
