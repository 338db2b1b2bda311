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
    """``affine_grid``: the points of one map each; a map goes with its image. The points of an image stay whole."""

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
