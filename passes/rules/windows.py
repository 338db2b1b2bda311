"""Windows read into runs of one axis and summed back from it: ``F.unfold``, ``F.fold``, ``Tensor.unfold``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of
from .base import Rule, register

__all__ = ["Columns", "Fold", "Windows"]


class _Columns(Rule):
    """One channel on one side, a run of as many positions as a window has on the other: they stay or go together."""

    spatial: int
    """How many trailing axes of the operand are not channels."""

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        axis = len(shape_of(source)) - self.spatial - 1
        axes.pass_through(source, out, ((leading, leading) for leading in range(axis)))
        before, after = shape_of(source)[axis], shape_of(out)[axis]
        if is_static(before) and is_static(after):
            wide = np.arange(max(before, after))
            axes.gather((source, axis), (out, axis), wide * before // wide.size, wide * after // wide.size)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        source = op.node.all_input_nodes[0]
        given, rank = facts[source].plain(), len(shape_of(op.node))
        axis = given.rank - self.spatial - 1
        if given.nothing or any(extent > 1 for extent in given.known.shape[axis + 1 :]):
            return unknown(rank)
        before, after = shape_of(source)[axis], shape_of(op.node)[axis]
        value, known = given.value, given.known
        if known.shape[axis] > 1:
            shape = (*known.shape[: axis + 1], -1)
            value, known = self._channels(value.reshape(shape), known.reshape(shape), before, after)
        image = (1,) * (rank - axis - 1)
        shape = (*known.shape[: axis + 1], *image)
        return self._found(op, value.reshape(shape), known.reshape(shape))

    def _channels(
        self, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any], before: int, after: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Constants of the channels, which are the last axis but one, on the other side."""
        raise NotImplementedError

    def _found(self, op: Operation, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> Facts:
        """What is claimed of the result."""
        raise NotImplementedError


@register
class Columns(_Columns):
    """``F.unfold``: a constant channel is a run of that constant, if no window reads padding or the constant is zero.

    For example::

        before im2col(x 2x8x8x8, [3, 3], [1, 1], [0, 0], [1, 1]) -> 2x72x36
        after  im2col(x 2x4x8x8, [3, 3], [1, 1], [0, 0], [1, 1]) -> 2x36x36
    """

    operators = ("aten.im2col",)
    spatial = 2

    def _channels(
        self, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any], before: int, after: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return value.repeat(after // before, -2), known.repeat(after // before, -2)

    def _found(self, op: Operation, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> Facts:
        return collapsed(value, known & ((value == 0) | (not any(op["padding"]))))


@register
class Fold(_Columns):
    """``F.fold``: a run of one constant is that constant times how many windows meet at a place, one plane for all runs.

    For example::

        before col2im(x 2x8x64, [9, 9], [2, 2], [1, 1], [0, 0], [1, 1]) -> 2x2x9x9
        after  col2im(x 2x4x64, [9, 9], [2, 2], [1, 1], [0, 0], [1, 1]) -> 2x1x9x9
    """

    operators = ("aten.col2im",)
    spatial = 1

    def _channels(
        self, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any], before: int, after: int
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        shape = (*value.shape[:-2], after, before // after, 1)
        value, known = value.reshape(shape), known.reshape(shape)
        first = value[..., :1, :]
        return first[..., 0, :], (known & (value == first)).all(-2)

    def _found(self, op: Operation, value: np.ndarray[Any, Any], known: np.ndarray[Any, Any]) -> Facts:
        return collapsed(value, known).with_pattern(op.node.name)


@register
class Windows(Rule):
    """``Tensor.unfold``: windows along one axis, which stays whole; their entries are a new last axis.

    For example::

        before unfold(x 2x8x8x8, 2, 3, 2) -> 2x8x3x8x3
        after  unfold(x 2x4x8x8, 2, 3, 2) -> 2x4x3x8x3
    """

    operators = ("aten.unfold",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op["self"]
        rank = len(shape_of(source))
        dim = op["dimension"] % max(1, rank)
        axes.pass_through(source, op.node, ((axis, axis) for axis in range(rank) if axis != dim))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        """What does not differ along the axis is the same in every window."""
        given, rank = facts[op["self"]].plain(), len(shape_of(op.node))
        if given.rank and given.known.shape[op["dimension"] % given.rank] > 1:
            return unknown(rank)
        shape = (*given.known.shape, 1)[:rank]
        return collapsed(given.value.reshape(shape), given.known.reshape(shape))
