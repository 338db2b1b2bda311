"""Tensors made on the spot: zeros, ones and full ones are constants."""

from __future__ import annotations

import numpy as np

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of, tensor_inputs
from .base import Rule, register

__all__ = ["Filled", "FilledLike"]

_VALUES = {"zeros": 0.0, "ones": 1.0, "new_zeros": 0.0, "new_ones": 1.0, "zeros_like": 0.0, "ones_like": 1.0}


def _filled(op: Operation) -> Facts:
    value = _VALUES.get(op.name.removeprefix("aten."), op.get("fill_value"))
    rank = len(shape_of(op.node))
    if not isinstance(value, int | float):
        return unknown(rank)
    return collapsed(np.full((1,) * rank, float(value)), np.ones((1,) * rank, bool))


@register
class Filled(Rule):
    """``zeros``, ``ones``, ``full`` and their ``new_`` forms: their axes may shrink with what they meet.

    For example::

        before new_zeros(x 2x8x8x8, [2, 8, 8, 8]) -> 2x8x8x8
        after  new_zeros(x 2x4x8x8, [2, 4, 8, 8]) -> 2x4x8x8
    """

    operators = ("aten.zeros", "aten.ones", "aten.full", "aten.new_zeros", "aten.new_ones", "aten.new_full")

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        for source in tensor_inputs(op.node):  # Only the source's type is read.
            axes.touch(*((source, axis) for axis in range(len(shape_of(source)))))
        axes.touch(*((op.node, axis) for axis in range(len(shape_of(op.node)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return _filled(op)

    def rewrite(self, op: Operation, edit: Edit) -> None:
        sizes = list(op["size"])
        for axis, size in enumerate(sizes):
            if is_static(size):
                sizes[axis] = int(edit.kept(op.node, axis).sum())
        edit.set_argument(op, "size", sizes)


@register
class FilledLike(Rule):
    """``zeros_like`` and its relatives: the shape of another tensor.

    For example::

        before zeros_like(x 2x8x8x8) -> 2x8x8x8
        after  zeros_like(x 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.zeros_like", "aten.ones_like", "aten.full_like")

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = next(tensor_inputs(op.node))
        axes.pass_through(source, op.node, ((axis, axis) for axis in range(len(shape_of(source)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return _filled(op)
