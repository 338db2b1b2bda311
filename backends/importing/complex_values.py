"""Complex values as pairs of real ones: TVM has no complex type.

Every operator on complex values is decomposed into ``view_as_complex(f(view_as_real(...)))``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition
from .complex_moves import MOVES, cat, stack
from .complex_pairs import as_complex, pair, paired, parts

__all__ = ["COMPLEX"]

A = torch.ops.aten


def _is_complex(*values: Any) -> bool:
    return any(isinstance(value, Tensor | complex) and _is_one(value) for value in values)


def _is_one(value: Tensor | complex) -> bool:
    return value.is_complex() if isinstance(value, Tensor) else True


def _where_complex(decomposition: Decomposition) -> Decomposition:
    """Leaves calls alone none of whose positional operands, or tensors in lists, is complex."""

    def found(*operands: Any, **options: Any) -> Any:
        listed = [
            value for operand in operands for value in (operand if isinstance(operand, list | tuple) else [operand])
        ]
        return decomposition(*operands, **options) if _is_complex(*listed) else NotImplemented

    return found


def _operand(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Tensor):
        return parts(value) if value.is_complex() else (value, None)
    return (value.real, value.imag or None) if isinstance(value, complex) else (value, None)


def _sum(first: Any, second: Any, sign: int) -> Tensor:
    (a, b), (c, d) = _operand(first), _operand(second)
    real, imaginary = a + sign * c, (b if d is None else sign * d if b is None else b + sign * d)
    return paired(*torch.broadcast_tensors(real, imaginary))


def add(first: Any, second: Any, alpha: Any = 1) -> Tensor:
    return _sum(first, second if alpha == 1 else mul(second, alpha), 1)


def sub(first: Any, second: Any, alpha: Any = 1) -> Tensor:
    return _sum(first, second if alpha == 1 else mul(second, alpha), -1)


def mul(first: Any, second: Any) -> Any:
    (a, b), (c, d) = _operand(first), _operand(second)
    if d is None:
        return paired(a * c, b * c) if b is not None else a * c
    return paired(a * c, a * d) if b is None else paired(a * c - b * d, a * d + b * c)


def div(first: Any, second: Any) -> Tensor:
    """By the divisor's greater part first, so that its square cannot overflow (Smith, 1962)."""
    (a, b), (c, d) = _operand(first), _operand(second)
    if d is None:
        return paired(a / c, b / c)
    scale = torch.maximum(c.abs(), d.abs()) if isinstance(c, Tensor) else max(abs(c), abs(d))
    c, d = c / scale, d / scale
    norm = (c * c + d * d) * scale
    b = 0 * a if b is None else b
    return paired((a * c + b * d) / norm, (b * c - a * d) / norm)


def _product(operator: OpOverload) -> Decomposition:
    """Products of matrices, of which either may be real."""

    def decomposition(first: Tensor, second: Tensor) -> Tensor:
        (a, b), (c, d) = _operand(first), _operand(second)
        if d is None:
            return paired(operator(a, c), operator(b, c))
        if b is None:
            return paired(operator(a, c), operator(a, d))
        return paired(operator(a, c) - operator(b, d), operator(a, d) + operator(b, c))

    return decomposition


def addmm(bias: Tensor, first: Tensor, second: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    product = A.bmm.default(first, second) if first.dim() == 3 else A.mm.default(first, second)
    return add(product if alpha == 1 else mul(product, alpha), bias, beta)


def exp(x: Tensor) -> Tensor:
    real, imaginary = parts(x)
    return polar(real.exp(), imaginary)


def polar(size: Tensor, angle: Tensor) -> Tensor:
    return paired(size * angle.cos(), size * angle.sin())


def magnitude(x: Tensor) -> Tensor:
    """Scaled by the greater part, as the square of a large or a tiny part is not a number of this type."""
    real, imaginary = (part.abs() for part in parts(x))
    large, small = torch.maximum(real, imaginary), torch.minimum(real, imaginary)
    share = torch.where(
        large == 0, torch.zeros_like(large), small / torch.where(large == 0, torch.ones_like(large), large)
    )
    size = large * torch.sqrt(1 + share * share)
    unbounded = torch.logical_or(torch.isinf(real), torch.isinf(imaginary))
    return torch.where(unbounded, torch.full_like(size, math.inf), size)


def angle(x: Tensor) -> Tensor:
    if not x.is_complex():
        return torch.where(x < 0, torch.full_like(x, math.pi), torch.where(torch.isnan(x), x, torch.zeros_like(x)))
    real, imaginary = parts(x)
    return torch.atan2(imaginary, real)


def power(x: Tensor, exponent: Any) -> Tensor:
    """A small whole one by products."""
    if exponent in (1, 2, 3, 4):
        found = x
        for _ in range(int(exponent) - 1):
            found = mul(found, x)
        return found
    return polar(magnitude(x) ** exponent, angle(x) * exponent)


def sgn(x: Tensor) -> Tensor:
    size = magnitude(x)
    return div(x, torch.where(size == 0, torch.ones_like(size), size))


def _created(operator: OpOverload) -> Decomposition:
    """One number everywhere, of a complex type."""

    def decomposition(*arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Any:
        value = arguments[-1]
        if not (isinstance(value, complex) or (dtype is not None and dtype.is_complex)):
            return NotImplemented
        part = torch.float64 if dtype == torch.complex128 else torch.float32
        return paired(*[operator(*arguments[:-1], float(number), dtype=part) for number in (value.real, value.imag)])

    return decomposition


def conj(x: Tensor) -> Tensor:
    real, imaginary = parts(x)
    return paired(real, -imaginary)


def where(condition: Tensor, first: Any, second: Any) -> Tensor:
    first, second = (pair(torch.as_tensor(value)) for value in (first, second))
    return as_complex(torch.where(condition.unsqueeze(-1), first, second))


def _to_copy(x: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """To another precision, to the real part alone, or from a real tensor."""
    wanted = x.dtype if dtype is None else dtype
    if not (x.is_complex() or wanted.is_complex):
        return NotImplemented
    if not wanted.is_complex:
        return A._to_copy.default(parts(x)[0], dtype=wanted)
    part = torch.float64 if wanted == torch.complex128 else torch.float32
    return as_complex(A._to_copy.default(pair(x), dtype=part))


COMPLEX: Mapping[OpOverload, Decomposition] = {
    **{operator: _where_complex(decomposition) for operator, decomposition in MOVES.items()},
    **{operator: _created(operator) for operator in (A.full.default, A.scalar_tensor.default)},
    A.cat.default: _where_complex(cat),
    A.stack.default: _where_complex(stack),
    A.add.Tensor: _where_complex(add),
    A.add.Scalar: _where_complex(add),
    A.sub.Tensor: _where_complex(sub),
    A.sub.Scalar: _where_complex(sub),
    A.mul.Tensor: _where_complex(mul),
    A.mul.Scalar: _where_complex(mul),
    A.div.Tensor: _where_complex(div),
    A.div.Scalar: _where_complex(div),
    A.reciprocal.default: _where_complex(lambda x: div(1.0, x)),
    A.neg.default: _where_complex(lambda x: as_complex(-pair(x))),
    A.mm.default: _where_complex(_product(A.mm.default)),
    A.bmm.default: _where_complex(_product(A.bmm.default)),
    A.addmm.default: _where_complex(addmm),
    A.baddbmm.default: _where_complex(addmm),
    A.exp.default: _where_complex(exp),
    A.abs.default: _where_complex(magnitude),
    A.angle.default: angle,
    A.log.default: _where_complex(lambda x: paired(magnitude(x).log(), angle(x))),
    A.sqrt.default: _where_complex(lambda x: polar(magnitude(x).sqrt(), angle(x) / 2)),
    A.pow.Tensor_Scalar: _where_complex(power),
    A.square.default: _where_complex(lambda x: mul(x, x)),
    A.sgn.default: _where_complex(sgn),
    A.eq.Tensor: _where_complex(
        lambda x, y: torch.logical_and(*[a == b for a, b in zip(parts(x), parts(y), strict=True)])
    ),
    A.ne.Tensor: _where_complex(
        lambda x, y: torch.logical_or(*[a != b for a, b in zip(parts(x), parts(y), strict=True)])
    ),
    A.linalg_vector_norm.default: _where_complex(
        lambda x, *rest, **options: A.linalg_vector_norm.default(magnitude(x), *rest, **options)
    ),
    A.copy.default: _where_complex(lambda x, source, *rest: as_complex(pair(source)).expand(x.shape)),
    A.real.default: _where_complex(lambda x: parts(x)[0]),
    A.imag.default: _where_complex(lambda x: parts(x)[1]),
    A.conj.default: _where_complex(conj),
    A._conj.default: _where_complex(conj),
    A._conj_physical.default: _where_complex(conj),
    A.conj_physical.default: _where_complex(conj),
    A.resolve_conj.default: _where_complex(lambda x: x),
    A.where.self: _where_complex(where),
    A.complex.default: paired,
    A.polar.default: polar,
    A._to_copy.default: _to_copy,
    A.isnan.default: _where_complex(lambda x: torch.logical_or(*[part.isnan() for part in parts(x)])),
}
"""Of complex operands; what else PyTorch does with them is refused."""
