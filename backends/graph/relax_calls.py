"""What the rules of reading ask of a Relax call and of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from .nodes import Array, Detail, Node
from .precision import moves, takes

__all__ = [
    "Rule",
    "as_rows",
    "computed_image",
    "float_image",
    "is_line",
    "known_array",
    "moved_image",
    "node_for",
    "operator_of",
    "shape_and_dtype",
    "unrowed",
]

Rule = Callable[[Any, Sequence[Any]], "Node | tuple[Node, ...] | None"]
"""Reads a call and its arguments, which were read before; None where it does not take them."""


def operator_of(call: Any) -> str:
    """The name of the operator, as in ``relax.nn.conv2d``; empty for a call of something else."""
    return str(getattr(call.op, "name", ""))


def shape_and_dtype(expression: Any) -> tuple[tuple[int, ...], str]:
    """Static shape and dtype; ``((), "tuple")`` for what is no tensor."""
    kind = expression.ty
    if not isinstance(kind, relax.TensorType):
        return (), "tuple"
    return tuple(int(extent) for extent in kind.shape), str(kind.dtype)


def node_for(op: str, call: Any, inputs: list[Node], detail: Detail | None) -> Node:
    """A node of the call's shape, type and name."""
    shape, dtype = shape_and_dtype(call)
    return Node(op, inputs, shape, dtype, detail, operator_of(call))


def known_array(value: Any) -> Array | None:
    """What a constant holds; None for all else."""
    return value.detail_as(np.ndarray) if isinstance(value, Node) and value.op == "constant" else None


def float_image(*values: Any) -> bool:
    """Whether all of them can live in the packed layout: ``(N, C, H, W)`` or ``(N, C)``, of a type that kernels take."""
    return all(isinstance(value, Node) and value.is_image and takes(value.dtype) for value in values)


def moved_image(*values: Any) -> bool:
    """Whether all of them can live in the packed layout, of a type that kernels move."""
    return all(isinstance(value, Node) and value.is_image and moves(value.dtype) for value in values)


def is_line(value: Any) -> bool:
    """Whether it has the shape of a line, ``(N, C, L)``, which whoever reads it as an image takes for one of height 1."""
    return isinstance(value, Node) and len(value.shape) == 3 and 0 not in value.shape


def computed_image(value: Any) -> bool:
    """An image that is no constant: elementwise kernels take the layout of one, and a weight has none."""
    return float_image(value) and value.op != "constant"


def as_rows(node: Node) -> Node:
    """`node` as a matrix of its last axis, taking back a reshape from one."""
    if len(node.shape) == 2:
        return node
    shape = (math.prod(node.shape[:-1]), node.shape[-1])
    if node.op == "reshape" and node.inputs[0].shape == shape:
        return node.inputs[0]
    return Node("reshape", [node], shape, node.dtype)


def unrowed(node: Node, shape: tuple[int, ...]) -> Node:
    """A matrix with its rows along the axes of `shape` again."""
    return node if node.shape == shape else Node("reshape", [node], shape, node.dtype)
