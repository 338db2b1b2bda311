"""Operators that work entry by entry, with broadcasting: activations, sums, products, casts, dropout in inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, real_numbers, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_tensor, is_unit, shape_of, tensor_inputs
from .base import Rule, register

__all__ = ["Elementwise", "Gated", "Identity", "Multiply", "ParametricRelu", "ParametricReluKernel", "relate_broadcast"]

_UNARY = """abs acos acosh asin asinh atan atanh bitwise_not ceil celu clamp clamp_max clamp_min clip cos cosh elu erf
erfc exp exp2 expm1 fix floor frac gelu hardshrink hardsigmoid hardswish hardtanh leaky_relu log log10 log1p log2
log_sigmoid logical_not logit mish nan_to_num neg negative reciprocal relu relu6 round rrelu rsqrt selu sgn sigmoid sign silu
sin sinh softplus softshrink sqrt square tan tanh threshold trunc"""

_BROADCAST = """__and__ __lshift__ __or__ __rshift__ __xor__ add addcdiv addcmul bitwise_and bitwise_left_shift bitwise_or
bitwise_right_shift bitwise_xor complex eq fmax fmin fmod ge greater gt hypot le lerp less logical_and logical_or
logical_xor lt maximum minimum ne not_equal polar pow remainder rsub sub subtract xlogy"""


def relate_broadcast(op: Operation, axes: AxesBuilder) -> None:
    """Ties every operand's axes to the result's, aligned at the end; an axis of size 1 is spread, not tied."""
    shape = shape_of(op.node)
    for operand in tensor_inputs(op.node):
        sizes = shape_of(operand)
        offset = len(shape) - len(sizes)
        for axis, size in enumerate(sizes):
            if is_unit(size) and not is_unit(shape[axis + offset]):
                axes.touch((operand, axis))
            else:
                axes.same((operand, axis), (op.node, axis + offset))
    axes.touch(*((op.node, axis) for axis in range(len(shape))))


@register
class Elementwise(Rule):
    """The result is known where all operands are: the operator itself is run on the constants, in float64.

    For example::

        before abs(x 2x8x8x8) -> 2x8x8x8
        after  abs(x 2x4x8x8) -> 2x4x8x8
    """

    operators = tuple(f"aten.{name}" for name in f"{_UNARY} {_BROADCAST}".split())

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        relate_broadcast(op, axes)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        operands = [facts[node].plain() for node in tensor_inputs(op.node)]
        sized = any(not is_tensor(node) for node in op.node.all_input_nodes)  # A number known only when it runs.
        if not operands or sized or any(operand.nothing for operand in operands):
            return unknown(rank)
        value, known = _evaluate(op.node, facts)
        for operand in operands:
            known = known & _aligned(operand.known, rank)
        return collapsed(np.broadcast_to(value, np.broadcast_shapes(value.shape, known.shape)), known)


@register
class Multiply(Elementwise):
    """Products: a zero stays zero under every factor that is finite.

    For example::

        before mul(x 2x8x8x8, y 2x8x8x8) -> 2x8x8x8
        after  mul(x 2x4x8x8, y 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.mul", "aten.multiply")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        both = super().constants(op, facts)
        nodes = list(tensor_inputs(op.node))
        scaled = _scaled(facts[nodes[0]], op) if len(nodes) == 1 and both.nothing else both
        if scaled is not both and not scaled.nothing:
            return scaled
        zero = np.zeros((1,) * rank, bool)
        for node in nodes:
            here = _zeros(facts[node])
            others = (facts.ranges.of(factor) for factor in (op["self"], op["other"]) if factor is not node)
            if here.any() and all(other.finite for other in others):
                zero = zero | _aligned(here, rank)
        return collapsed(np.where(zero, 0.0, both.value), zero | both.known)


@register
class Divide(Elementwise):
    """Quotients: zero divided by what is never zero, as a size is, is zero.

    For example::

        before div(x 2x8x8x8, y 2x8x8x8) -> 2x8x8x8
        after  div(x 2x4x8x8, y 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.div", "aten.divide", "aten.true_divide", "aten.floor_divide")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        both = super().constants(op, facts)
        dividend, divisor = op["self"], op["other"]
        if not is_tensor(dividend) or not _zeros(facts[dividend]).any() or not facts.ranges.of(divisor).nonzero:
            return both
        zero = _aligned(_zeros(facts[dividend]), both.rank)
        return collapsed(np.where(zero, 0.0, both.value), zero | both.known)


@register
class AngleOfPoint(Elementwise):
    """``atan2``: where y is zero and x is not above it, the signs of zeros decide between 0, pi and -pi, and constants do not
    tell them.

    For example::

        before atan2(x 2x8x8x8, y 2x8x8x8) -> 2x8x8x8
        after  atan2(x 2x5x8x8, y 2x5x8x8) -> 2x5x8x8
    """

    operators = ("aten.atan2",)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        found = super().constants(op, facts)
        y, x = (facts[op[name]].plain().value for name in ("self", "other"))
        unsure = (_aligned(y, found.rank) == 0) & (_aligned(x, found.rank) <= 0)
        return found if found.nothing else collapsed(found.value, found.known & ~unsure)


@register
class Choose(Elementwise):
    """``where`` and ``masked_fill``: where both choices are the same constant, it does not matter which is taken.

    For example::

        before masked_fill(x 2x8x8x8, y 2x8x8x8, 0.3) -> 2x8x8x8
        after  masked_fill(x 2x4x8x8, y 2x4x8x8, 0.3) -> 2x4x8x8
    """

    operators = ("aten.where", "aten.masked_fill")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        found = super().constants(op, facts)
        other = op.get("value" if op.name == "aten.masked_fill" else "other")
        if "self" not in op.arguments or other is None:
            return found
        (first, first_known), (second, second_known) = (
            _constant(value, facts, found.rank) for value in (op["self"], other)
        )
        same = first_known & second_known & (first == second)
        shape = np.broadcast_shapes(found.known.shape, same.shape)
        same = np.broadcast_to(same, shape)
        return collapsed(np.where(same, first, found.value), same | found.known)


@register
class Identity(Rule):
    """Casts between types, copies, conjugates (constants are real), and dropout in inference: the value as it was.

    For example::

        before alpha_dropout(x 2x8x8x8, 0.4, False) -> 2x8x8x8
        after  alpha_dropout(x 2x4x8x8, 0.4, False) -> 2x4x8x8
    """

    operators = tuple(
        f"aten.{name}"
        for name in (
            "alias alpha_dropout clone conj _conj conj_physical contiguous detach dropout feature_alpha_dropout "
            "feature_dropout _to_copy to type_as positive lift_fresh_copy resolve_conj resolve_neg"
        ).split()
    )

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, *others = op.node.all_input_nodes
        axes.pass_through(source, op.node, ((axis, axis) for axis in range(len(shape_of(op.node)))))
        for other in filter(is_tensor, others):  # Only the other's type is read.
            axes.touch(*((other, axis) for axis in range(len(shape_of(other)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        source = next(tensor_inputs(op.node))
        given, kind = facts[source], op.node.meta["val"].dtype
        if kind is source.meta["val"].dtype:
            return given
        if kind.is_floating_point or kind.is_complex:  # What is beyond a narrow type's largest number becomes infinite.
            fits = np.abs(given.value) <= torch.finfo(kind).max
            return given if fits.all() else collapsed(given.value, given.known & fits, given.pattern)
        plain = given.plain()
        if kind is torch.bool:
            return collapsed(plain.value != 0, plain.known)
        whole, limits = np.trunc(plain.value), torch.iinfo(kind)
        return collapsed(whole, plain.known & (whole >= limits.min) & (whole <= limits.max))


@register
class ParametricRelu(Rule):
    """``prelu``: x where positive, slope times x elsewhere; one slope, or one per channel.

    For example::

        before prelu(x 2x8x8x8, weight 8) -> 2x8x8x8
        after  prelu(x 2x4x8x8, weight 4) -> 2x4x8x8
    """

    operators = ("aten.prelu",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, slope = op["self"], op["weight"]
        rank = len(shape_of(op.node))
        axes.pass_through(source, op.node, ((axis, axis) for axis in range(rank)))
        if shape_of(slope) and not is_unit(shape_of(slope)[0]):
            axes.same((slope, 0), (op.node, 1 if rank > 1 else 0))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given, slopes = facts[op["self"]].plain(), facts[op["weight"]]
        shape = [1] * given.rank
        if given.rank:
            shape[1 if given.rank > 1 else 0] = slopes.known.size
        return _leaky(
            given, slopes.value.reshape(shape), slopes.known.reshape(shape), facts.ranges[op["weight"]].finite
        )


@register
class ParametricReluKernel(Elementwise):
    """``_prelu_kernel``: the same with slopes that are broadcast entry by entry.

    For example::

        before _prelu_kernel(x 2x8x8x8, y 1x8x1x1) -> 2x8x8x8
        after  _prelu_kernel(x 2x4x8x8, y 1x4x1x1) -> 2x4x8x8
    """

    operators = ("aten._prelu_kernel",)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        given, slopes = facts[op["self"]].plain(), facts[op["weight"]].plain()
        given = Facts(_aligned(given.value, rank), _aligned(given.known, rank))
        finite = facts.ranges[op["weight"]].finite
        return _leaky(given, _aligned(slopes.value, rank), _aligned(slopes.known, rank), finite)


def _leaky(given: Facts, slope: np.ndarray[Any, Any], known: np.ndarray[Any, Any], finite: bool) -> Facts:
    """Known where the slope is, and where it does not matter: above zero, and at zero if it is finite."""
    value = np.where(given.value > 0, given.value, slope * given.value)
    return collapsed(
        value, np.broadcast_to(given.known & (known | (given.value > 0) | ((given.value == 0) & finite)), value.shape)
    )


@register
class Gated(Rule):
    """``glu``: the first half times the sigmoid of the second; a channel goes with its gate.

    For example::

        before glu(x 2x8x8x8, 1) -> 2x4x8x8
        after  glu(x 2x4x8x8, 1) -> 2x2x8x8
    """

    operators = ("aten.glu",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op["self"], op.node
        dim = op["dim"] % len(shape_of(out))
        half = shape_of(out)[dim]
        for axis in range(len(shape_of(out))):
            if axis != dim:
                axes.same((source, axis), (out, axis))
        if isinstance(half, int):
            position = np.arange(half)
            axes.gather((source, dim), (out, dim), np.concatenate([position, position + half]), np.tile(position, 2))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op["self"]].plain()
        dim = op["dim"] % given.rank
        size = shape_of(op["self"])[dim]
        if not isinstance(size, int) or given.nothing:
            return unknown(given.rank)
        shape = [*given.known.shape[:dim], size, *given.known.shape[dim + 1 :]]
        value, gate = np.split(np.broadcast_to(given.value, shape), 2, dim)
        known, gate_known = np.split(np.broadcast_to(given.known, shape), 2, dim)
        zero = known & (value == 0)
        if zero.any() and not facts.ranges[op["self"]].finite:
            zero = zero & gate_known
        return collapsed(value / (1 + np.exp(-gate)), (known & gate_known) | zero)


def _zeros(given: Facts) -> np.ndarray[Any, Any]:
    """Where a value is known to be zero; with a pattern, too."""
    return np.asarray(given.known & (given.value == 0))


def _constant(value: Any, facts: KnownConstants, rank: int) -> tuple[Any, Any]:
    """The constants of an argument and where they are known, aligned to `rank` axes."""
    if is_tensor(value):
        given = facts[value].plain()
        return _aligned(given.value, rank), _aligned(given.known, rank)
    known = isinstance(value, int | float)
    return np.full((1,) * rank, float(value) if known else 0.0), np.full((1,) * rank, known)


def _scaled(given: Facts, op: Operation) -> Facts:
    """A pattern times a number is the same pattern."""
    factor = op.get("other")
    if given.pattern is None or not isinstance(factor, int | float):
        return unknown(given.rank)
    return collapsed(given.value * factor, given.known, given.pattern)


def _aligned(array: np.ndarray[Any, Any], rank: int) -> np.ndarray[Any, Any]:
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _evaluate(node: fx.Node, facts: KnownConstants) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Runs the node's operator on the constants of its operands, and says where the result is a real number."""

    def constant(operand: Any) -> Any:
        if not is_tensor(operand):
            return operand
        value = torch.from_numpy(np.ascontiguousarray(facts[operand].plain().value))
        kind = operand.meta["val"].dtype
        return value if kind.is_floating_point else value.to(torch.complex128 if kind.is_complex else kind)

    args = fx.map_arg(node.args, constant)
    kwargs = fx.map_arg({k: v for k, v in node.kwargs.items() if k not in ("dtype", "device", "layout")}, constant)
    with torch.no_grad():
        result = node.target(*args, **kwargs)  # type: ignore[operator]
    return real_numbers(result)
