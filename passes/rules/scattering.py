"""Writing at indices: axes that are not indexed pass, and a constant that is written over itself stays.

The indices are read by every channel alike, so no channel depends on another one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..axes import AxesBuilder
from ..facts import Facts, agreeing, collapsed, level, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_tensor, is_unit, shape_of
from .base import Rule, register
from .indexing import Indexed, indexed_by

__all__ = ["WrittenElements", "WrittenPlaces", "WrittenRows"]


class _Written(Rule):
    """The result is `self`, with another value written into it or added, multiplied or compared where it is written."""

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} writes at indices of the channel axis"

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        """Where the same constant is written over a constant, indices do not matter; combined, only zeros stay."""
        given = facts[op["self"]].plain()
        same = agreeing(given, self._written(op, facts))
        return collapsed(same.value, same.known & (same.value == 0)) if self._combines(op) else same

    def _written(self, op: Operation, facts: KnownConstants) -> Facts:
        """What is written, wherever that is: facts of the rank of `self`."""
        raise NotImplementedError

    def _combines(self, op: Operation) -> bool:
        """Returns if what was there counts too."""
        raise NotImplementedError


def _value_of(op: Operation) -> Any:
    """What is written: a node or a number."""
    return next(op[name] for name in ("source", "src", "value", "values") if name in op.arguments)


def _number(value: Any, rank: int) -> Facts:
    """Facts of a number that is spread over `rank` axes; nothing if it is known only when the model runs."""
    return collapsed(np.full((1,) * rank, value), True) if isinstance(value, int | float) else unknown(rank)


@register
class WrittenRows(_Written):
    """``index_add``, ``index_copy``, ``index_fill``: slices along one axis, which stays whole in both operands.

    For example::

        before index_add(x 2x8x8x8, 2, lifted_tensor_0 4, y 2x8x4x8, alpha=0.5) -> 2x8x8x8
        after  index_add(x 2x4x8x8, 2, lifted_tensor_0 4, y 2x4x4x8, alpha=0.5) -> 2x4x8x8
    """

    operators = ("aten.index_add", "aten.index_copy", "aten.index_fill")

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        rank = len(shape_of(op.node))
        others = [axis for axis in range(rank) if axis != op["dim"] % max(1, rank)]
        for operand in (op["self"], _value_of(op)):
            if is_tensor(operand) and len(shape_of(operand)) == rank:
                axes.pass_through(operand, op.node, ((axis, axis) for axis in others))

    def _written(self, op: Operation, facts: KnownConstants) -> Facts:
        rank, value = len(shape_of(op.node)), _value_of(op)
        if not is_tensor(value):
            return _number(value, rank)
        given = facts[value].plain()
        if given.rank != rank:  # A number in a tensor.
            return (
                Facts(given.value.reshape((1,) * rank), given.known.reshape((1,) * rank))
                if not given.rank
                else unknown(rank)
            )
        return level(given, (op["dim"] % rank,)) if rank else given

    def _combines(self, op: Operation) -> bool:
        return op.name == "aten.index_add"

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        times = op.get("alpha", 1)  # Zeros times infinity are no zeros.
        finite = isinstance(times, int | float) and math.isfinite(times)
        return super().constants(op, facts) if finite else unknown(len(shape_of(op.node)))


@register
class WrittenElements(_Written):
    """``scatter`` and its relatives: elements along one axis, each with an index of its own. Axes on which `self`, the indices
    and what is written have equal sizes pass; on the others, what is written is a corner.

    For example::

        before scatter(x 2x8x8x8, 2, y 2x8x4x8, z 2x8x8x8) -> 2x8x8x8
        after  scatter(x 2x4x8x8, 2, y 2x4x4x8, z 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")

    def _shared(self, op: Operation) -> list[int]:
        operands = [operand for operand in (op["self"], op["index"], _value_of(op)) if is_tensor(operand)]
        rank = len(shape_of(op.node))
        if any(len(shape_of(operand)) != rank for operand in operands):
            return []
        others = (axis for axis in range(rank) if axis != op["dim"] % rank)
        return [axis for axis in others if len({str(shape_of(operand)[axis]) for operand in operands}) == 1]

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        shared = self._shared(op)
        for operand in (op["self"], op["index"], _value_of(op)):
            if is_tensor(operand):
                axes.pass_through(operand, op.node, ((axis, axis) for axis in shared))

    def _written(self, op: Operation, facts: KnownConstants) -> Facts:
        rank, value = len(shape_of(op.node)), _value_of(op)
        if not is_tensor(value):
            return _number(value, rank)
        given, shared = facts[value].plain(), self._shared(op)
        if given.rank != rank:
            return unknown(rank)
        return level(given, tuple(axis for axis in range(rank) if axis not in shared))

    def _combines(self, op: Operation) -> bool:
        return op.name == "aten.scatter_add" or op.get("reduce") not in (None, "amax", "amin")


@register
class WrittenPlaces(_Written):
    """``index_put``: ``x[:, i, j] = y`` and ``x[mask] = y``. The axes that are not indexed pass; those of a mask too, if one
    and the same value is written wherever it is true.

    For example::

        before index_put(x 2x8x8x8, [None, None, y 8, z 8], u 2x8x1) -> 2x8x8x8
        after  index_put(x 2x4x8x8, [None, None, y 8, z 8], u 2x4x1) -> 2x4x8x8
    """

    operators = ("aten.index_put",)

    def _targets(self, op: Operation, indexed: Indexed) -> list[int | None]:
        """For every axis of the values the axis of `self` that it is; None for those that stand for indexed ones."""
        count = len(shape_of(op["values"]))
        return list(indexed.order[len(indexed.order) - count :]) if count else []

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        indexed, out, values = indexed_by(op), op.node, op["values"]
        targets, sizes = self._targets(op, indexed), shape_of(values)
        passing = [axis for axis in range(len(shape_of(out))) if axis not in indexed.axes]
        one = all(is_unit(size) for size, axis in zip(sizes, targets, strict=True) if axis is None)
        if indexed.mask is not None and one:
            axes.pass_through(indexed.mask, out, enumerate(indexed.axes))
            passing += indexed.axes
        axes.pass_through(op["self"], out, ((axis, axis) for axis in passing))
        for place, (size, axis) in enumerate(zip(sizes, targets, strict=True)):
            if axis is not None and is_unit(size) and not is_unit(shape_of(out)[axis]):
                axes.touch((values, place))
            elif axis is not None:
                axes.same((values, place), (out, axis))

    def _written(self, op: Operation, facts: KnownConstants) -> Facts:
        targets = self._targets(op, indexed_by(op))
        given = level(facts[op["values"]].plain(), tuple(place for place, axis in enumerate(targets) if axis is None))
        shape = [1] * len(shape_of(op.node))
        for place, axis in enumerate(targets):
            if axis is not None:
                shape[axis] = given.known.shape[place]
        return Facts(given.value.reshape(shape), given.known.reshape(shape))

    def _combines(self, op: Operation) -> bool:
        return bool(op["accumulate"])
