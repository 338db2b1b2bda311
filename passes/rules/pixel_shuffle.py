"""``pixel_shuffle`` and ``pixel_unshuffle``: one channel on one side, r*r neighbouring ones on the other."""

from __future__ import annotations

import numpy as np

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, shape_of
from .base import Rule, register

__all__ = ["PixelShuffle", "PixelUnshuffle"]


class _Shuffle(Rule):
    """The many channels that stand for one go together."""

    factor: str
    """The argument that holds r."""

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        axis = len(shape_of(out)) - 3
        axes.pass_through(source, out, ((leading, leading) for leading in range(axis)))
        before, after = shape_of(source)[axis], shape_of(out)[axis]
        wide = np.arange(max(before, after))
        axes.gather((source, axis), (out, axis), wide * before // wide.size, wide * after // wide.size)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        axis = given.rank - 3
        if any(given.known.shape[other] > 1 for other in range(given.rank) if other != axis):
            return unknown(given.rank)
        if given.known.shape[axis] == 1:
            return given
        return self._shuffled(given, axis, op[self.factor] ** 2)

    def _shuffled(self, given: Facts, axis: int, times: int) -> Facts:
        raise NotImplementedError


@register
class PixelShuffle(_Shuffle):
    """r*r neighbouring channels become one, r times as high and wide: constant if all of them are the same constant.

    For example::

        before pixel_shuffle(x 2x16x8x8, 2) -> 2x4x16x16
        after  pixel_shuffle(x 2x8x8x8, 2) -> 2x2x16x16
    """

    operators = ("aten.pixel_shuffle",)
    factor = "upscale_factor"

    def _shuffled(self, given: Facts, axis: int, times: int) -> Facts:
        shape = (*given.known.shape[:axis], -1, times, *given.known.shape[axis + 1 :])
        value, known = given.value.reshape(shape), given.known.reshape(shape)
        first = value.take([0], axis + 1)
        equal = (known & (value == first)).all(axis + 1)
        return collapsed(first.squeeze(axis + 1), equal)


@register
class PixelUnshuffle(_Shuffle):
    """One channel becomes r*r neighbouring ones.

    For example::

        before pixel_unshuffle(x 2x8x8x8, 2) -> 2x32x4x4
        after  pixel_unshuffle(x 2x4x8x8, 2) -> 2x16x4x4
    """

    operators = ("aten.pixel_unshuffle",)
    factor = "downscale_factor"

    def _shuffled(self, given: Facts, axis: int, times: int) -> Facts:
        return collapsed(given.value.repeat(times, axis), given.known.repeat(times, axis))
