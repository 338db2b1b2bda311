"""Complex values as pairs of real ones: TVM has no complex type.

A complex tensor is a real one with an axis more at its end, of the real and the imaginary part. Every operator on complex
values is decomposed into ``view_as_complex(f(view_as_real(...)))``; then the two views between operators cancel, and what is
complex at the model's inputs or outputs is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from .arithmetic import Decomposition

__all__ = ["COMPLEX", "COMPLEX_LEFT", "complex_left", "pair", "paired", "parts", "without_pairs"]

A = torch.ops.aten


def pair(x: Tensor) -> Tensor:
    """The real tensor that stands for a complex one; of a real one, with zeros."""
    if x.is_complex():
        return A.view_as_real.default(x)  # type: ignore[no-any-return]
    return A.stack.default([x, torch.zeros_like(x)], -1)  # type: ignore[no-any-return]


def parts(x: Tensor) -> tuple[Tensor, Tensor]:
    both = pair(x)
    return both.select(-1, 0), both.select(-1, 1)


def paired(real: Tensor, imaginary: Tensor) -> Tensor:
    return _complex(A.stack.default([real, imaginary], -1))


def _complex(both: Tensor) -> Tensor:
    return A.view_as_complex.default(both)  # type: ignore[no-any-return]


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


def _moved(operator: OpOverload, *changes: Callable[[Tensor, Any], Any]) -> Decomposition:
    """An operator that only moves entries: on the pairs, with arguments as `changes` make them for an axis more."""

    def decomposition(x: Tensor, *rest: Any, **options: Any) -> Tensor:
        changed = [change(x, given) for change, given in zip(changes, rest, strict=False)]
        return _complex(operator(pair(x), *changed, *rest[len(changes) :], **options))

    return decomposition


def _same(x: Tensor, given: Any) -> Any:
    return given


def _axis(x: Tensor, axis: int) -> int:
    return axis % max(1, x.dim())


def _new_axis(x: Tensor, axis: int) -> int:
    return axis % (x.dim() + 1)


def _axes(x: Tensor, axes: int | Sequence[int]) -> list[int]:
    return [_axis(x, axis) for axis in ([axes] if isinstance(axes, int) else axes)]


def _all_axes(x: Tensor, axes: Sequence[int]) -> list[int]:
    return [*_axes(x, axes), x.dim()]


def _and_two(x: Tensor, shape: Sequence[int]) -> list[int]:
    return [*shape, 2]


def _view(x: Tensor, shape: Sequence[int]) -> list[int]:
    known = [extent for extent in shape if extent != -1]
    return [*[x.numel() // max(1, math.prod(known)) if extent == -1 else extent for extent in shape], 2]


def _and_one(x: Tensor, repeats: Sequence[int]) -> list[int]:
    return [*repeats, 1]


def _padding(x: Tensor, widths: Sequence[int]) -> list[int]:
    return [0, 0, *widths]


def _permuted(x: Tensor, order: Sequence[int]) -> list[int]:
    return [*_axes(x, order), x.dim()]


_MOVES: dict[OpOverload, Decomposition] = {
    A.view.default: _moved(A.view.default, _view),
    A._unsafe_view.default: _moved(A.reshape.default, _view),
    A.reshape.default: _moved(A.reshape.default, _view),
    A.permute.default: _moved(A.permute.default, _permuted),
    A.transpose.int: _moved(A.transpose.int, _axis, _axis),
    A.unsqueeze.default: _moved(A.unsqueeze.default, _new_axis),
    A.squeeze.dim: _moved(A.squeeze.dim, _axis),
    A.squeeze.dims: _moved(A.squeeze.dims, _axes),
    A.expand.default: _moved(A.expand.default, _and_two),
    A.repeat.default: _moved(A.repeat.default, _and_one),
    A.slice.Tensor: _moved(A.slice.Tensor, _axis),
    A.select.int: _moved(A.select.int, _axis),
    A.unfold.default: lambda x, axis, size, step: _complex(
        pair(x).unfold(_axis(x, axis), size, step).transpose(-1, -2)
    ),
    A.flip.default: _moved(A.flip.default, _axes),
    A.roll.default: lambda x, shifts, axes=(): (
        _moved(A.roll.default, _same, _axes)(x, shifts, axes)
        if axes
        else A.roll.default(x.reshape(-1), shifts, [0]).reshape(x.shape)
    ),
    A.index_select.default: _moved(A.index_select.default, _axis),
    A.index.Tensor: _moved(A.index.Tensor),
    A.gather.default: lambda x, axis, index: paired(*[part.gather(axis, index) for part in parts(x)]),
    A.clone.default: lambda x, **options: _complex(pair(x).clone()),
    A.alias.default: lambda x: _complex(pair(x)),
    A.constant_pad_nd.default: _moved(A.constant_pad_nd.default, _padding),
    A.diagonal.default: lambda x, offset=0, dim1=0, dim2=1: _complex(
        A.diagonal.default(pair(x), offset, _axis(x, dim1), _axis(x, dim2)).transpose(-1, -2)
    ),
    A.sum.dim_IntList: lambda x, axes=None, keepdim=False, dtype=None: paired(
        *[A.sum.dim_IntList(part, axes, keepdim) for part in parts(x)]
    ),
    A.sum.default: lambda x, dtype=None: paired(*[part.sum() for part in parts(x)]),
    A.mean.dim: lambda x, axes=None, keepdim=False, dtype=None: paired(
        *[A.mean.dim(part, axes, keepdim) for part in parts(x)]
    ),
    A.mean.default: lambda x, dtype=None: paired(*[part.mean() for part in parts(x)]),
    A.tril.default: lambda x, diagonal=0: paired(*[part.tril(diagonal) for part in parts(x)]),
    A.triu.default: lambda x, diagonal=0: paired(*[part.triu(diagonal) for part in parts(x)]),
    A.split.Tensor: lambda x, size, axis=0: [_complex(part) for part in pair(x).split(size, _axis(x, axis))],
    A.split_with_sizes.default: lambda x, sizes, axis=0: [
        _complex(part) for part in pair(x).split(sizes, _axis(x, axis))
    ],
    A.cumsum.default: lambda x, axis, dtype=None: paired(*[part.cumsum(axis) for part in parts(x)]),
}
"""Operators for which the two parts are two tensors."""


def _cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    return _complex(A.cat.default([pair(x) for x in tensors], _axis(tensors[0], axis)))


def _stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    return _complex(A.stack.default([pair(x) for x in tensors], _new_axis(tensors[0], axis)))


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
    return _complex(torch.where(condition.unsqueeze(-1), first, second))


def _to_copy(x: Tensor, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    """To another precision, to the real part alone, or from a real tensor."""
    wanted = x.dtype if dtype is None else dtype
    if not (x.is_complex() or wanted.is_complex):
        return NotImplemented
    if not wanted.is_complex:
        return A._to_copy.default(parts(x)[0], dtype=wanted)
    part = torch.float64 if wanted == torch.complex128 else torch.float32
    return _complex(A._to_copy.default(pair(x), dtype=part))


COMPLEX: Mapping[OpOverload, Decomposition] = {
    **{operator: _where_complex(decomposition) for operator, decomposition in _MOVES.items()},
    **{operator: _created(operator) for operator in (A.full.default, A.scalar_tensor.default)},
    A.cat.default: _where_complex(_cat),
    A.stack.default: _where_complex(_stack),
    A.add.Tensor: _where_complex(add),
    A.add.Scalar: _where_complex(add),
    A.sub.Tensor: _where_complex(sub),
    A.sub.Scalar: _where_complex(sub),
    A.mul.Tensor: _where_complex(mul),
    A.mul.Scalar: _where_complex(mul),
    A.div.Tensor: _where_complex(div),
    A.div.Scalar: _where_complex(div),
    A.reciprocal.default: _where_complex(lambda x: div(1.0, x)),
    A.neg.default: _where_complex(lambda x: _complex(-pair(x))),
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
    A.copy.default: _where_complex(lambda x, source, *rest: _complex(pair(source)).expand(x.shape)),
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


COMPLEX_LEFT = (
    "gives complex numbers in a form that compiled code, which has real ones, cannot carry",
    "give outputs as torch.view_as_real(y), .abs() or .real, and compute with products, sums and Fourier transforms",
)
"""Why what `complex_left` finds is refused, and what to do."""


def without_pairs(program: ExportedProgram) -> None:
    """Cancels views of pairs as complex numbers and back, in place; stored complex tensors become pairs.

    Raises:
        ValueError: an input is complex.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "placeholder" and _complex_valued(node) and node.users:
            _store_pair(program, node)
    for node in list(graph.nodes):
        if node.target is A.view_as_real.default:
            source = node.args[0]
            if source.target is A.view_as_complex.default:
                node.replace_all_uses_with(source.args[0])
            elif source.op == "placeholder" and not _complex_valued(source):
                node.replace_all_uses_with(source)
    graph.eliminate_dead_code()


def complex_left(program: ExportedProgram) -> fx.Node | None:
    """The first operator whose complex result is not among those that have a decomposition, or is an output."""
    for node in program.graph.nodes:
        if node.op == "call_function" and _complex_valued(node) and node.target is not A.view_as_complex.default:
            return node
    return next((node for node in program.graph.nodes if node.op == "call_function" and _complex_valued(node)), None)


def _complex_valued(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_complex()


def _store_pair(program: ExportedProgram, node: fx.Node) -> None:
    spec = next(spec for spec in program.graph_signature.input_specs if spec.arg.name == node.name)
    stores = (program.state_dict, program.constants)
    store = next((store for store in stores if spec.target is not None and spec.target in store), None)
    if store is None:
        raise ValueError(
            f"the input '{node.name}' is complex, and compiled code has real numbers only; give"
            " torch.view_as_real(x), and begin the model with torch.view_as_complex"
        )
    value = store[spec.target]
    both = torch.view_as_real(value.detach().resolve_conj()).contiguous()
    store[spec.target] = (
        torch.nn.Parameter(both, requires_grad=False) if isinstance(value, torch.nn.Parameter) else both
    )
    node.meta["val"] = torch.view_as_real(node.meta["val"])
