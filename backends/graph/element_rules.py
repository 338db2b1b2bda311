"""How operators on single elements are read: functions and arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .nodes import Array, Node, Scalar, constant
from .precision import takes
from .relax_calls import Rule, computed_image, known_array, node_for, shape_and_dtype, unrowed

__all__ = ["ELEMENTS", "FUNCTION", "PARAMETERS"]

FUNCTION, PARAMETERS = "reconvene.function", "reconvene.parameters"
"""Attributes of a kernel that was written for one function of elements, which Relax has no operator for: its name, and its
literal numbers.
"""

_WRITTEN = frozenset({"elu"})
"""Those that `kernels.scalar` has."""


def _unary(function: str, *names: str) -> Rule:
    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        numbers = tuple(float(getattr(call.attrs, name)) for name in names)
        return _mapped(call, arguments[0], Scalar(function, numbers))

    return rule


def _mapped(call: Any, data: Any, scalar: Scalar) -> Node | None:
    """Of an image, or of the matrix whose rows lie along several axes."""
    if isinstance(data, Node) and data.op == "reshape" and len(data.inputs[0].shape) == 2:
        matrix = data.inputs[0]
        return unrowed(Node("scalar", [matrix], matrix.shape, matrix.dtype, scalar), data.shape)
    return node_for("scalar", call, [data], scalar) if computed_image(data) else None


def _kernel(call: Any, arguments: Sequence[Any]) -> Node | None:
    """What says that it is a function of ours."""
    attrs, operands = arguments[0].attrs, arguments[1]
    function = str(attrs[FUNCTION]) if attrs and FUNCTION in attrs else ""
    if function not in _WRITTEN or not isinstance(operands, tuple) or len(operands) != 1:
        return None
    return _mapped(call, operands[0], Scalar(function, tuple(float(number) for number in attrs[PARAMETERS])))


def _clip(call: Any, arguments: Sequence[Any]) -> Node | None:
    low, high = (float(getattr(bound, "value", math.nan)) for bound in arguments[1:3])
    if not computed_image(arguments[0]) or math.isnan(low) or math.isnan(high):
        return None
    return node_for("scalar", call, [arguments[0]], Scalar("clip", (low, high)))


def _binary(function: str) -> Rule:
    """Both sides images of one shape, or one a scalar, a channel vector or an ``(N, C, 1, 1)`` image. Of three axes, a side has
    to be computed as a line.
    """

    def rule(call: Any, arguments: Sequence[Any]) -> Node | None:
        left, right = arguments
        shape, dtype = shape_and_dtype(call)
        if not takes(dtype) or 0 in shape:
            return None
        by_row = _by_row(function, arguments, shape) if function != "divide" else None
        line = any(isinstance(side, Node) and side.is_line and side.shape == shape for side in arguments)
        if by_row is not None or not (line or len(shape) in (2, 4)):
            return by_row
        if all(known_array(side) is not None for side in arguments):
            return None
        sides = [_aligned(side, shape) for side in (left, right)]
        if sides[0] is None or sides[1] is None:
            return None
        name = function
        if name == "divide":
            inverse = _inverse(known_array(sides[1]))
            if inverse is None:
                return None
            sides[1], name = constant(inverse), "multiply"
        return node_for("scalar", call, [sides[0], sides[1]], Scalar(name))

    return rule


def _by_row(function: str, sides: Sequence[Any], shape: tuple[int, ...]) -> Node | None:
    """Arithmetic between a matrix that was reshaped to `shape` and a vector along the last axis, on the
    matrix.
    """
    for index in (0, 1):
        rows, vector = sides[index], known_array(sides[1 - index])
        if vector is None or not isinstance(rows, Node) or rows.op != "reshape" or rows.shape != shape:
            continue
        matrix = rows.inputs[0]
        if (
            len(matrix.shape) != 2
            or matrix.shape[1] != shape[-1]
            or (vector.size > 1 and vector.size != vector.shape[-1])
        ):
            continue
        operands = [matrix, constant(vector.reshape(1, -1))]
        ordered = operands if index == 0 else operands[::-1]
        return unrowed(Node("scalar", ordered, matrix.shape, matrix.dtype, Scalar(function)), shape)
    return None


def _inverse(divisor: Array | None) -> Array | None:
    """One divided by what is known, if all of it and of the result are normal numbers."""
    if divisor is None or not np.all(divisor):
        return None
    inverse = 1.0 / divisor.astype("float64")
    limits = np.finfo(divisor.dtype)
    normal = (abs(inverse) >= limits.tiny) & (abs(inverse) <= limits.max)
    return inverse.astype(divisor.dtype) if bool(np.all(normal)) else None


def _aligned(side: Any, shape: tuple[int, ...]) -> Node | None:
    """`side` as a node that broadcasts along whole dimensions to `shape`, or None when a kernel cannot read
    it so.
    """
    if not isinstance(side, Node) or not takes(side.dtype):
        return None
    if side.op == "constant":
        value = side.detail_as(np.ndarray)
        value = value.reshape((1,) * (len(shape) - value.ndim) + value.shape)
        whole = value.size == 1 or (value.shape[1] == shape[1] and value.size == shape[1])
        return constant(value) if whole else None
    gate = (*shape[:2], *[1] * (len(shape) - 2))
    return side if side.shape in (shape, gate) else None


ELEMENTS: dict[str, Rule] = {
    "relax.nn.relu": _unary("relu"),
    "relax.sigmoid": _unary("sigmoid"),
    "relax.tanh": _unary("tanh"),
    "relax.nn.silu": _unary("silu"),
    "relax.negative": _unary("negative"),
    "relax.abs": _unary("abs"),
    "relax.nn.gelu": _unary("gelu"),
    "relax.nn.gelu_tanh": _unary("gelu_tanh"),
    "relax.nn.leakyrelu": _unary("leaky_relu", "alpha"),
    "relax.call_tir": _kernel,
    "relax.clip": _clip,
    "relax.add": _binary("add"),
    "relax.subtract": _binary("subtract"),
    "relax.multiply": _binary("multiply"),
    "relax.divide": _binary("divide"),
    "relax.maximum": _binary("maximum"),
    "relax.minimum": _binary("minimum"),
}
"""By operator."""
