"""PyTorch's arithmetic made explicit for TVM's importer, which takes operands of any types as they come.

The importer turns a Python number into a constant of the tensor's type (an int64 tensor times 0.5 becomes zero), divides
integers as integers, does not read the factor `alpha` of sums, and floors a rounded quotient where PyTorch divides exactly.
So before it runs, operands are converted to the type that PyTorch computes in (`torch._prims_common.elementwise_dtypes`
says which), and what it misses is spelled out in operators that it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

__all__ = ["Decomposition", "first_of", "promoting"]

Decomposition = Callable[..., Any]

A = torch.ops.aten

_OPERANDS = {
    KIND.DEFAULT: "mul.Tensor mul.Scalar fmod.Tensor fmod.Scalar maximum minimum max.other min.other clamp.Tensor",
    KIND.INT_TO_FLOAT: "div.Tensor div.Scalar reciprocal exp expm1 log log2 log10 log1p sqrt rsqrt sin cos tan sinh cosh"
    " tanh asin acos atan asinh acosh atanh atan2 erf sigmoid logaddexp",
    KIND.ALWAYS_BOOL: "eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor gt.Scalar gt.Tensor"
    " ge.Scalar ge.Tensor",
}
"""Operators whose operands need nothing but the right type, by PyTorch's way to find it."""


_NARROW = (torch.float16, torch.bfloat16)

_OF_BITS = {
    A.mul.Tensor: A.logical_and,
    A.mul.Scalar: A.logical_and,
    A.maximum.default: A.logical_or,
    A.minimum.default: A.logical_and,
    A.max.other: A.logical_or,
    A.min.other: A.logical_and,
}
"""What arithmetic of booleans is; TVM has none."""


def promoting() -> dict[OpOverload, Decomposition]:
    """Decompositions of arithmetic. Each gives NotImplemented where the importer does the operator right as it is."""
    table = {
        operator: _promoting(operator, kind) for kind, names in _OPERANDS.items() for operator in _overloads(names)
    }
    table |= {operator: _summing(operator) for operator in _overloads("add.Tensor add.Scalar sub.Tensor sub.Scalar")}
    table |= {operator: _by_nothing(operator, table[operator]) for operator in _overloads("mul.Tensor mul.Scalar")}
    table |= {operator: _by_nothing(operator, table[operator]) for operator in _overloads("div.Tensor div.Scalar")}
    table |= {A.pow.Tensor_Scalar: _power}
    table |= {operator: _raised for operator in _overloads("pow.Scalar pow.Tensor_Tensor")}
    table |= {operator: _remainder for operator in _overloads("remainder.Tensor remainder.Scalar")}
    table |= {operator: _divided for operator in _overloads("div.Tensor_mode div.Scalar_mode")}
    table |= {A.where.self: _chosen, A.clamp.default: _clamped}
    table |= {A.clamp_min.default: _clamped, A.clamp_max.default: lambda x, bound: _clamped(x, None, bound)}
    return {operator: _rounding(decomposition) for operator, decomposition in table.items()}


def _rounding(decomposition: Decomposition) -> Decomposition:
    """What PyTorch computes in float32 of narrower floats it gives in their type."""

    def rounded(*operands: Any, **options: Any) -> Any:
        found = decomposition(*operands, **options)
        if not isinstance(found, Tensor) or found.dtype != torch.float32:
            return found
        numbers = [operand for operand in operands if isinstance(operand, Tensor | int | float)]
        wanted = elementwise_dtypes(*numbers, type_promotion_kind=KIND.INT_TO_FLOAT)[1]
        return found.to(wanted) if wanted in _NARROW else found

    return rounded


def _overloads(names: str) -> Iterable[OpOverload]:
    for name in names.split():
        packet, _, overload = name.partition(".")
        yield getattr(getattr(A, packet), overload or "default")


def first_of(ours: Decomposition, theirs: Decomposition | None) -> Decomposition:
    """Theirs where ours has nothing to say."""

    def decomposition(*operands: Any, **options: Any) -> Any:
        found = ours(*operands, **options)
        return theirs(*operands, **options) if found is NotImplemented and theirs is not None else found

    return decomposition


def _computed_in(operands: Iterable[Any], kind: KIND = KIND.DEFAULT) -> torch.dtype:
    present = [operand for operand in operands if operand is not None]
    return elementwise_dtypes(*present, type_promotion_kind=kind)[0]


def _cast(operands: Iterable[Any], dtype: torch.dtype) -> list[Any]:
    return [operand.to(dtype) if isinstance(operand, Tensor) else operand for operand in operands]


def _fit(operands: Iterable[Any], dtype: torch.dtype) -> bool:
    return all(operand.dtype == dtype for operand in operands if isinstance(operand, Tensor))


def _promoting(operator: OpOverload, kind: KIND) -> Decomposition:
    def decomposition(*operands: Any) -> Any:
        dtype = _computed_in(operands, kind)
        if kind is KIND.ALWAYS_BOOL and dtype == torch.bool:
            dtype = torch.int32  # LLVM has no comparison of bits that TVM would ask for.
        if dtype == torch.bool and operator in _OF_BITS:
            first, second = operands
            return _OF_BITS[operator](*_tensors(first, second, dtype))
        return NotImplemented if _fit(operands, dtype) else operator(*_cast(operands, dtype))

    return decomposition


def _summing(operator: OpOverload) -> Decomposition:
    def decomposition(first: Any, second: Any, alpha: Any = 1) -> Any:
        dtype = _computed_in((first, second))
        if dtype == torch.bool:
            return A.logical_or(*_tensors(first, second, dtype)) if alpha else first
        if first is second and alpha == 1 and dtype.is_floating_point and operator is A.sub.Tensor:
            return _nothing(first)
        if _fit((first, second), dtype) and alpha == 1:
            return NotImplemented
        first, second = _cast((first, second), dtype)
        return operator(first, second if alpha == 1 else second * alpha)

    return decomposition


def _by_nothing(operator: OpOverload, otherwise: Decomposition) -> Decomposition:
    """By a literal zero, which TVM takes for zero, or for an error, whatever the other side is: not if it is infinite."""
    times = "mul" in str(operator)

    def decomposition(first: Any, second: Any) -> Any:
        if not isinstance(second, Tensor) and second == 0:
            x = first.to(_computed_in((first, second), KIND.DEFAULT if times else KIND.INT_TO_FLOAT))
            if x.dtype.is_floating_point:
                return _nothing(x) if times else x * math.copysign(math.inf, second)
        return otherwise(first, second)

    return decomposition


def _nothing(x: Tensor) -> Tensor:
    """Zero, or NaN where `x` is not finite."""
    return torch.where(torch.isfinite(x), 0.0, math.nan).to(x.dtype)


_POWERS: dict[float, Decomposition] = {
    0.5: torch.sqrt,
    2: lambda x: x * x,
    3: lambda x: x * x * x,
    -0.5: torch.rsqrt,
    -1: torch.reciprocal,
    -2: lambda x: torch.reciprocal(x * x),
}
"""What PyTorch computes such powers of floating-point numbers as."""


def _power(base: Tensor, exponent: Any) -> Any:
    dtype = _computed_in((base, exponent))
    if dtype.is_floating_point and exponent in _POWERS:
        return _POWERS[exponent](base.to(dtype))
    return NotImplemented if _fit((base,), dtype) else A.pow.Tensor_Scalar(base.to(dtype), exponent)


def _raised(base: Any, exponent: Any) -> Any:
    dtype = _computed_in((base, exponent), KIND.BOOL_TO_LONG)
    if not dtype.is_floating_point:
        raise ValueError("TVM has no power of integers with a tensor for exponent; compute it in floating point")
    return NotImplemented if _fit((base, exponent), dtype) else A.pow(*_cast((base, exponent), dtype))


def _remainder(number: Any, divisor: Any) -> Any:
    """Of the divisor's sign: what the exact division leaves, of the number's sign, moved by one divisor if need be."""
    dtype = _computed_in((number, divisor))
    if not dtype.is_floating_point:
        return NotImplemented if _fit((number, divisor), dtype) else A.remainder(*_cast((number, divisor), dtype))
    number, divisor = _tensors(number, divisor, dtype)
    left = A.fmod.Tensor(number, divisor)
    return A.where.self(_opposed(left, divisor), left + divisor, left)


def _divided(number: Any, divisor: Any, *, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return A.div(number, divisor)
    dtype = _computed_in((number, divisor))
    tensors = _tensors(number, divisor, dtype)
    if dtype.is_floating_point:
        return A.trunc(A.div.Tensor(*tensors)) if rounding_mode == "trunc" else _floored(*tensors)
    if all(isinstance(given, Tensor) and given.dtype == dtype for given in (number, divisor)):
        return NotImplemented
    return A.div.Tensor_mode(*tensors, rounding_mode=rounding_mode)


def _floored(number: Tensor, divisor: Tensor) -> Tensor:
    """The floor of the exact quotient, as PyTorch and Python find it: what fmod leaves is taken off before dividing."""
    left = A.fmod.Tensor(number, divisor)
    quotient = A.div.Tensor(number - left, divisor)
    quotient = A.where.self(_opposed(left, divisor), quotient - 1, quotient)
    floor = A.floor(quotient)
    floor = A.where.self(quotient - floor > 0.5, floor + 1, floor)
    return A.where.self(divisor == 0, A.div.Tensor(number, divisor), floor)


def _opposed(left: Tensor, divisor: Tensor) -> Tensor:
    return A.logical_and(A.logical_xor(left < 0, divisor < 0), left != 0)


def _chosen(condition: Tensor, first: Tensor, second: Tensor) -> Any:
    dtype = _computed_in((first, second))
    return NotImplemented if _fit((first, second), dtype) else A.where.self(condition, *_cast((first, second), dtype))


def _clamped(x: Tensor, low: Any = None, high: Any = None) -> Any:
    """The importer puts infinity for a bound that is not there, which integers do not have."""
    dtype = _computed_in((x, low, high))
    known = not any(bound is not None and math.isnan(bound) for bound in (low, high))
    if _fit((x,), dtype) and known and (dtype.is_floating_point or None not in (low, high)):
        return NotImplemented
    x = x.to(dtype)
    if not known:
        return x * math.nan
    x = x if low is None else A.maximum(x, torch.full_like(x, low))
    return x if high is None else A.minimum(x, torch.full_like(x, high))


def _tensors(number: Any, divisor: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both as tensors of `dtype`; one of them is a tensor."""
    number, divisor = _cast((number, divisor), dtype)
    if not isinstance(divisor, Tensor):
        divisor = torch.full_like(number, divisor)
    if not isinstance(number, Tensor):
        number = torch.full_like(divisor, number)
    return number, divisor
