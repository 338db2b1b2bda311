"""Sampling an image at positions that are computed, channel by channel, and the positions of an affine map."""

from __future__ import annotations

from dataclasses import replace

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of
from .base import Rule, register
from .pooling import Spatial

__all__ = ["AffineGrid", "GridSample"]


@register
class GridSample(Spatial):
    """Sampling at given points, channel by channel. Points beyond the image read zeros unless the padding is another.

    Image and points share the batch, where deformable attention has its heads; the points' other axes are the result's
    image.

    For example::

        before grid_sampler(x 2x8x9x8, y 2x4x3x2, 0, 0, False) -> 2x8x4x3
        after  grid_sampler(x 2x4x9x8, y 2x4x3x2, 0, 0, False) -> 2x4x4x3
    """

    operators = ("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")

    def spatial(self, op: Operation) -> int:
        return len(shape_of(op.node)) - 2

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        super().relate(op, axes)
        axes.same((op["grid"], 0), (op.node, 0))
        for axis in range(self.spatial(op)):
            axes.same((op["grid"], axis + 1), (op.node, axis + 2))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = self.uniform(op, facts)
        reads_zeros = op["padding_mode"] == 0
        return replace(given, known=given.known & (given.value == 0)) if reads_zeros else given


@register
class AffineGrid(Rule):
    """``affine_grid``: the points of one map each; a map goes with its image. The points of an image stay whole.

    For example::

        before affine_grid_generator(x 8x2x3, [8, 2, 8, 8], False) -> 8x8x8x2
        after  affine_grid_generator(x 4x2x3, [4, 2, 8, 8], False) -> 4x8x8x2
    """

    operators = ("aten.affine_grid_generator",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        axes.same((op["theta"], 0), (op.node, 0))

    def rewrite(self, op: Operation, edit: Edit) -> None:
        sizes = list(op["size"])
        if is_static(sizes[0]):
            sizes[0] = int(edit.kept(op.node, 0).sum())
            edit.set_argument(op, "size", sizes)
