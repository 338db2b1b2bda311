"""How arithmetic on codes is read: calls of what `importing.codes` keeps under the names of `passes.integers`' operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .nodes import Convolution, Frame, Node, Pool, Scalar, Weights, constant
from .relax_calls import Rule, as_rows, shape_and_dtype, unrowed

__all__ = ["CODE_RULES", "PREFIX"]

PREFIX = "reconvene."
"""Of the names of calls."""


def _numbers(value: Node) -> list[Any]:
    """The literal numbers that a constant holds."""
    return [number.item() for number in value.detail_as(np.ndarray).reshape(-1)]


def _number(value: Node) -> Any:
    return _numbers(value)[0]


def _convolution(shape: tuple[int, ...], codes: Node, *rest: Node) -> Node:
    kernel, bias = rest[0].detail_as(np.ndarray).astype("float64"), rest[1].detail_as(np.ndarray).astype("float64")
    zero, stride, padding, dilation, groups = _number(rest[2]), *map(_numbers, rest[3:6]), _number(rest[6])
    weights = Weights(kernel, bias - zero * kernel.sum((1, 2, 3)))
    rows, columns = padding
    detail = Convolution(
        weights, tuple(stride), (rows, columns, rows, columns), tuple(dilation), groups, zero if any(padding) else 0
    )
    return Node("convolution", [codes], shape, "int32", detail, "integer_conv2d")


def _linear(shape: tuple[int, ...], codes: Node, kernel: Node, bias: Node, zero: Node) -> Node:
    weights = kernel.detail_as(np.ndarray).astype("float64")
    offsets = bias.detail_as(np.ndarray).astype("float64") - _number(zero) * weights.sum(1)
    rows = as_rows(codes)
    detail = Convolution(Weights(weights[:, :, None, None], offsets))
    sums = Node("convolution", [rows], (rows.shape[0], len(weights)), "int32", detail, "integer_linear")
    return unrowed(sums, shape)


def _total(shape: tuple[int, ...], codes: Node, keepdim: Node) -> Node:
    return Node("total", [codes], shape, "int32")


def _window_total(shape: tuple[int, ...], codes: Node, *rest: Node) -> Node:
    window, stride, padding = (tuple(_numbers(value)) for value in rest[:3])
    if any(padding):
        batch, channels, height, width = codes.shape
        wider = (batch, channels, height + 2 * padding[0], width + 2 * padding[1])
        codes = Node("frame", [codes], wider, codes.dtype, Frame((*padding, *padding), fill=_number(rest[3])))
    return Node("pool", [codes], shape, "int32", Pool("sum", window, stride, (0, 0, 0, 0)))


def _requantize(shape: tuple[int, ...], sums: Node, scale: Node, axis: Node, *rest: Node) -> Node:
    return _scaled("requantize", "int8", shape, sums, scale, _number(axis), [_number(value) for value in rest])


def _rescale(shape: tuple[int, ...], sums: Node, scale: Node, axis: Node, offset: Node) -> Node:
    return _scaled("rescale", "float32", shape, sums, scale, _number(axis), [_number(offset)])


def _scaled(
    function: str, dtype: str, shape: tuple[int, ...], sums: Node, scale: Node, axis: int, numbers: Sequence[float]
) -> Node:
    image = len(shape) in (2, 4) and axis == 1
    if not image and axis != len(shape) - 1:
        raise ValueError(f"a scale along axis {axis} of {len(shape)}")
    rows = sums if image else as_rows(sums)
    factors = constant(scale.detail_as(np.ndarray).reshape(1, -1, *[1] * (len(rows.shape) - 2)))
    return _elements(function, dtype, shape, [rows, factors], numbers)


def _quantize(shape: tuple[int, ...], value: Node, *rest: Node) -> Node:
    return _elements("quantize", "int8", shape, [_image(value)], [_number(number) for number in rest])


def _dequantize(shape: tuple[int, ...], codes: Node, scale: Node, zero: Node) -> Node:
    return _elements("dequantize", "float32", shape, [_image(codes)], [_number(scale), _number(zero)])


def _sum(shape: tuple[int, ...], first: Node, second: Node, factors: Node, *rest: Node) -> Node:
    numbers = [*_numbers(factors), *(_number(value) for value in rest)]
    return _elements("code_sum", "int8", shape, _both(first, second), numbers)


def _product(shape: tuple[int, ...], first: Node, second: Node, zeros: Node, scale: Node, codes: Node) -> Node:
    numbers = [*_numbers(zeros), _number(scale), *_numbers(codes)]
    return _elements("code_product", "int8", shape, _both(first, second), numbers)


def _both(first: Node, second: Node) -> list[Node]:
    """Two operands as images of one shape, or one with a gate for each of its channels."""
    if first.shape != second.shape:
        return [first, second]
    image = _image(first)
    return [image, second if second.shape == image.shape else _image_like(second, image.shape)]


def _image_like(node: Node, shape: tuple[int, ...]) -> Node:
    inner = node.inputs[0] if node.op == "reshape" else node
    return inner if inner.shape == shape else _reshaped(node, shape)


def _offset(shape: tuple[int, ...], codes: Node, offsets: Node, *rest: Node) -> Node:
    return _beside("code_offset", shape, codes, offsets, [_number(value) for value in rest])


def _scale(shape: tuple[int, ...], codes: Node, scale: Node, *rest: Node) -> Node:
    return _beside("code_scale", shape, codes, scale, [_number(value) for value in rest])


def _beside(function: str, shape: tuple[int, ...], codes: Node, known: Node, numbers: Sequence[float]) -> Node:
    """A function of each code and of a number that is known, one for each channel or for each place."""
    image, array = _image(codes), known.detail_as(np.ndarray)
    whole = np.broadcast_to(array, shape).reshape(image.shape)
    for kept in (whole[:1, :, :1, :1] if whole.ndim == 4 else whole[:1], whole[:1]):
        if (whole == kept).all():
            whole = kept
    return _elements(function, "int8", shape, [image, constant(whole)], numbers)


def _table(shape: tuple[int, ...], codes: Node, table: Node, axis: Node) -> Node:
    image, known = _image(codes), table.detail_as(np.ndarray)
    if known.ndim == 2:
        image = _by_channel(codes, _number(axis))
        if image.shape[1] != len(known):
            raise ValueError(f"tables along axis {_number(axis)} of {codes.shape}")
    return unrowed(Node("table", [image], image.shape, "int8", known, "code_table"), shape)


def _by_channel(node: Node, axis: int) -> Node:
    """`node` as an image whose channels lie along `axis`, 1 or the last."""
    if node.is_image and axis == 1:
        return node
    if axis == len(node.shape) - 1:
        return as_rows(node)
    shape = (*node.shape[:2], 1, math.prod(node.shape[2:]))
    return node.inputs[0] if node.op == "reshape" and node.inputs[0].shape == shape else _reshaped(node, shape)


def _reshaped(node: Node, shape: tuple[int, ...]) -> Node:
    return node if node.shape == shape else Node("reshape", [node], shape, node.dtype)


def _elements(
    function: str, dtype: str, shape: tuple[int, ...], operands: list[Node], numbers: Sequence[float]
) -> Node:
    scalar = Scalar(function, tuple(float(number) for number in numbers))
    return unrowed(Node("scalar", operands, operands[0].shape, dtype, scalar, function), shape)


def _image(node: Node) -> Node:
    """`node` as an image, which kernels of single elements take: the one that it was, else rows of its last axis."""
    if node.is_image:
        return node
    if node.op == "reshape" and node.inputs[0].is_image:
        return node.inputs[0]
    shape = (1, math.prod(node.shape)) if len(node.shape) < 2 else (math.prod(node.shape[:-1]), node.shape[-1])
    return _reshaped(node, shape)


_RULES: dict[str, Callable[..., Node]] = {
    "integer_conv2d": _convolution,
    "integer_linear": _linear,
    "total": _total,
    "window_total": _window_total,
    "requantize": _requantize,
    "rescale": _rescale,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "code_sum": _sum,
    "code_offset": _offset,
    "code_scale": _scale,
    "code_product": _product,
    "code_table": _table,
}


def _call(call: Any, arguments: Sequence[Any]) -> Node | None:
    name = str(call.args[0].global_symbol)
    rule = _RULES.get(name.removeprefix(PREFIX))
    if not name.startswith(PREFIX) or rule is None:
        return None
    return rule(shape_and_dtype(call)[0], *arguments[1])


CODE_RULES: dict[str, Rule] = {"relax.call_dps_packed": _call}
"""By operator."""
