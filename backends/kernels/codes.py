"""Arithmetic on the codes of quantised values: a code ``q`` with scale ``s`` and zero ``z`` stands for ``s * (q - z)``.

Every function gives the same bits on every machine, those of `passes.integers.operators`: sums are exact in int32, a
multiplication in float32 rounds once, and what an addition rounds to a whole number was clamped to whole numbers before. The
clamp has to stand between: else LLVM fuses the multiplication with the addition that rounds, and ties fall to the other side.
Where an instruction rounds (`Vectors.rounds`, `Vectors.saturates`), whole numbers are clamped instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from .loops import load, local, number, store
from .vectors import Vectors

__all__ = ["CODES", "MOVED", "SMALL", "float_of_moved", "rounded_bits"]

Expression = Any

_MAGIC, _MAGIC_BITS = 12582912.0, 0x4B400000
"""1.5 * 2**23 and its bits: adding it rounds a float below 2**22 to a whole number, half to even, in its lowest bits."""
MOVED, SMALL = _MAGIC_BITS, 1 << 22
"""What is added to a whole number below `SMALL` so that it has the bits of itself plus 1.5 * 2**23 as a float."""


def _whole(vectors: Vectors, value: Expression, zero: float, low: float, high: float) -> Expression:
    """The code for `value` (float32, in steps of the result's scale) as int32. NaN gives `zero`."""
    if vectors.saturates and low <= zero <= high:
        whole = vectors.saturated_sum(vectors.rounded(value), _ints(vectors, zero)) if zero else vectors.rounded(value)
        return tirx.max(_ints(vectors, low), tirx.min(_ints(vectors, high), whole))
    if vectors.rounds and low <= zero <= high:
        whole = tirx.max(_ints(vectors, low - zero), tirx.min(_ints(vectors, high - zero), vectors.rounded(value)))
        return whole + _ints(vectors, zero) if zero else whole
    return _kept(vectors, rounded_bits(vectors, value, low - zero, high - zero) + _ints(vectors, zero - _MAGIC_BITS))


def rounded_bits(vectors: Vectors, value: Expression, low: float, high: float) -> Expression:
    """``rne(clamp(value))`` (float32, between whole numbers below 2**22) in the lowest bits of an int32; 0 of NaN."""
    if vectors.lanes > 1 and vectors.keeps_nans:
        value = vectors.maximum(vectors.number(low, "float32"), value)
        value = vectors.minimum(vectors.number(high, "float32"), value)
    else:
        value = tirx.max(vectors.number(low, "float32"), value)
        value = tirx.min(vectors.number(high, "float32"), value)
    return tirx.reinterpret(_vector("int32", vectors), value + vectors.number(_MAGIC, "float32"))


def float_of_moved(vectors: Vectors, total: Expression) -> Expression:
    """A whole number below `SMALL` as float32, given it plus `MOVED`: without an instruction that converts."""
    return tirx.reinterpret(_vector("float32", vectors), total) - vectors.number(_MAGIC, "float32")


def _requantized(
    vectors: Vectors, offset: float, zero: float, low: float, high: float, total: Expression, scale: Expression
) -> Expression:
    """``clamp(rne(float32(total + offset) * scale) + zero)`` of a sum of products."""
    total = total + _ints(vectors, offset) if offset else total
    return _whole(vectors, tirx.Cast(_vector("float32", vectors), total) * scale, zero, low, high)


def _rescaled(vectors: Vectors, offset: float, total: Expression, scale: Expression) -> Expression:
    """``float32(total + offset) * scale``, which no code is made of."""
    total = total + _ints(vectors, offset) if offset else total
    return tirx.Cast(_vector("float32", vectors), total) * scale


def _quantized(vectors: Vectors, inverse: float, zero: float, low: float, high: float, value: Expression) -> Expression:
    """``clamp(rne(value * inverse) + zero)``; the scale's `inverse` is a float32."""
    value = value if str(value.ty) == _vector("float32", vectors) else tirx.Cast(_vector("float32", vectors), value)
    return _whole(vectors, value * vectors.number(inverse, "float32"), zero, low, high)


def _dequantized(vectors: Vectors, scale: float, zero: float, code: Expression) -> Expression:
    """``float32(code - zero) * scale``."""
    whole = code - _ints(vectors, zero) if zero else code
    found = tirx.Cast(_vector("float32", vectors), whole) * vectors.number(scale, "float32")
    return found if vectors.dtype == "float32" else tirx.Cast(_vector(vectors.dtype, vectors), found)


def _sum(vectors: Vectors, *given: Any) -> Expression:
    """``clamp((first * first_factor + second * second_factor + offset) >> shift)``, factors below 2**21.

    `offset` has the zeros of all three and half of a step.
    """
    first_factor, second_factor, offset, shift, low, high, first, second = given
    total = first * _ints(vectors, first_factor) + second * _ints(vectors, second_factor)
    total = (total + _ints(vectors, offset)) >> _ints(vectors, shift)
    return tirx.min(_ints(vectors, high), tirx.max(_ints(vectors, low), total))


def _offset(vectors: Vectors, *given: Any) -> Expression:
    """``clamp((code * factor + offsets + offset) >> shift)``, with `offsets` that are known."""
    factor, offset, shift, low, high, code, offsets = given
    total = code * _ints(vectors, factor) + offsets
    total = (total + _ints(vectors, offset)) >> _ints(vectors, shift)
    return tirx.min(_ints(vectors, high), tirx.max(_ints(vectors, low), total))


def _product(vectors: Vectors, *given: Any) -> Expression:
    """``clamp(rne(float32((first - first_zero) * (second - second_zero)) * scale) + zero)``."""
    first_zero, second_zero, scale, zero, low, high, first, second = given
    total = (first - _ints(vectors, first_zero)) * (second - _ints(vectors, second_zero))
    value = tirx.Cast(_vector("float32", vectors), total) * vectors.number(scale, "float32")
    return _whole(vectors, value, zero, low, high)


def _kept(vectors: Vectors, code: Expression) -> Expression:
    """`code` in a register: of single numbers TVM would multiply out what follows, with constants that int32 does not hold."""
    if vectors.lanes > 1:
        return code
    register = local(1, "int32")
    store(register, 0, code)
    return load(register, 0)


def _ints(vectors: Vectors, value: float) -> Expression:
    return number(int(value), vectors.lanes, "int32")


def _vector(dtype: str, vectors: Vectors) -> str:
    return f"{dtype}x{vectors.lanes}" if vectors.lanes > 1 else dtype


CODES: dict[str, Callable[..., Expression]] = {
    "requantize": _requantized,
    "rescale": _rescaled,
    "quantize": _quantized,
    "dequantize": _dequantized,
    "code_sum": _sum,
    "code_offset": _offset,
    "code_scale": _requantized,
    "code_product": _product,
    "code_shift": lambda vectors, offset, code: code + _ints(vectors, offset),
}
"""By name, as `scalar.FUNCTIONS`. Codes and sums are int32 in registers, whatever they are in memory."""
