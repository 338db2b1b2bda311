"""Moves codes up by 128, into uint8, for machines whose products of codes are of unsigned by signed bytes.

The same numbers by other codes: ``s * (q - z)`` is ``s * ((q + 128) - (z + 128))``. So every constant that has to do with codes
is moved, and what the graph takes and gives as int8 stays int8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .nodes import Convolution, Frame, Graph, Node, Pool, Scalar, Weights
from .precision import reshapes

__all__ = ["move_codes"]

_STEP = 128
_MOVED = frozenset({"convolution", "pool", "total", "table", "scalar", "concat", "frame", "reindex", "flatten"})
"""Operations on codes with kernels of ours."""

Numbers = tuple[float, ...]


def _sum(first: float, second: float, offset: float, shift: float, low: float, high: float) -> Numbers:
    moved = offset + _STEP * (2**shift - first - second)
    return first, second, moved, shift, low + _STEP, high + _STEP


def _offset(factor: float, offset: float, shift: float, low: float, high: float) -> Numbers:
    return factor, offset + _STEP * (2**shift - factor), shift, low + _STEP, high + _STEP


def _product(first: float, second: float, scale: float, zero: float, low: float, high: float) -> Numbers:
    return first + _STEP, second + _STEP, scale, zero + _STEP, low + _STEP, high + _STEP


_NUMBERS: dict[str, Callable[..., Numbers]] = {
    "requantize": lambda offset, zero, low, high: (offset, zero + _STEP, low + _STEP, high + _STEP),
    "quantize": lambda inverse, zero, low, high: (inverse, zero + _STEP, low + _STEP, high + _STEP),
    "dequantize": lambda scale, zero: (scale, zero + _STEP),
    "code_sum": _sum,
    "code_offset": _offset,
    "code_scale": lambda offset, zero, low, high: (offset - _STEP, zero + _STEP, low + _STEP, high + _STEP),
    "code_product": _product,
}
"""The literal numbers of functions, from those for int8."""


def move_codes(graph: Graph) -> None:
    """Has all operations of ours compute on uint8, and their values converted where others read them."""
    moved = {node for node in graph.nodes if node.op in _MOVED and _has_codes(node)}
    for node in graph.nodes:
        if reshapes(node) and node.dtype == "int8" and node.inputs[0] in moved and node.is_image:
            moved.add(node)
    for node in moved:
        _move_numbers(node)
    known: dict[tuple[Node, bool], Node] = {}

    def given_to(reader_is_moved: bool, source: Node) -> Node:
        """`source` as its reader takes it."""
        if source.dtype != "int8" or reader_is_moved == (source in moved):
            return source
        key = source, reader_is_moved
        if key not in known:
            known[key] = _converted(source, reader_is_moved)
        return known[key]

    for node in graph.nodes:
        node.inputs = [given_to(node in moved, source) for source in node.inputs]
    graph.outputs = [given_to(False, node) for node in graph.outputs]
    for node in moved:
        node.dtype = "uint8" if node.dtype == "int8" else node.dtype
    graph.refresh()


def _has_codes(node: Node) -> bool:
    return node.dtype == "int8" or any(source.dtype == "int8" for source in node.inputs)


def _converted(source: Node, up: bool) -> Node:
    """The codes of `source` in the other type."""
    if source.op == "constant":
        codes = source.detail_as(np.ndarray).astype("int32") + _STEP
        return Node("constant", [], source.shape, "uint8", codes.astype("uint8"), source.name)
    dtype, offset = ("uint8", _STEP) if up else ("int8", -_STEP)
    return Node("scalar", [source], source.shape, dtype, Scalar("code_shift", (float(offset),)))


def _move_numbers(node: Node) -> None:
    """Changes what `node` knows of codes."""
    if node.op == "convolution":
        node.detail = _moved_convolution(node.detail_as(Convolution))
    elif node.op == "table":
        node.detail = (node.detail_as(np.ndarray).astype("int32") + _STEP).astype("uint8")
    elif node.op == "frame":
        frame = node.detail_as(Frame)
        node.detail = replace(frame, fill=frame.fill + _STEP)
    elif node.op == "scalar":
        scalar = node.detail_as(Scalar)
        numbers = _NUMBERS[scalar.function](*scalar.parameters) if scalar.function in _NUMBERS else scalar.parameters
        summed = node.inputs[0]
        if summed.op in ("total", "pool") and summed.dtype == "int32":
            numbers = (numbers[0] - _STEP * _pixels(summed), *numbers[1:])
        node.detail = Scalar(scalar.function, numbers)


def _moved_convolution(convolution: Convolution) -> Convolution:
    weights = convolution.weights
    bias = weights.bias - _STEP * weights.kernel.sum((1, 2, 3))
    zero = convolution.zero + _STEP if any(convolution.padding) else 0
    return replace(convolution, weights=Weights(weights.kernel, bias), zero=zero)


def _pixels(node: Node) -> int:
    """Of every sum."""
    return math.prod(node.detail_as(Pool).window if node.op == "pool" else node.inputs[0].image_shape[2:])
