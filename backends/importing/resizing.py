"""Resizing along one axis after the other, as PyTorch defines it, for what TVM's importer reads otherwise.

The importer's own resize is right for bilinear resizing whose scale is the ratio of the extents, and for nearest neighbours of
whole multiples. It knows no given scale beside that ratio, rounds positions in its own way, and fails on other modes. Here
each output is a sum of inputs ("taps") at positions that are computed in PyTorch's types and order
(aten/src/ATen/native/UpSample.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition

__all__ = ["RESIZING"]

A = torch.ops.aten

Taps = Callable[[Tensor, int], list[tuple[Tensor, Tensor]]]
"""From positions among so many inputs to pairs of indices and weights."""

_CUBIC = -0.75
"""The free coefficient of cubic convolution (Keys, 1981) that PyTorch takes."""


def nearest(axes: int, shift: float) -> Decomposition:
    """``shift`` is 0.5 for the mode ``nearest-exact``, which takes the middle of an output."""

    def decomposition(x: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
        plan = _plan(x, axes, size, factors)
        if axes == 2 and not shift and all(out % extent == 0 and step == extent / out for _, extent, out, step in plan):
            return NotImplemented
        for axis, extent, out, step in plan:
            position = (_outputs(out, x) + shift) * step
            x = x.index_select(axis, position.floor().to(torch.int64).clamp(max=extent - 1))
        return x

    return decomposition


def interpolated(axes: int, taps: Taps, from_zero: bool) -> Decomposition:
    """``from_zero``: no position lies before the first input."""

    def decomposition(
        x: Tensor, size: Sequence[int] | None, align_corners: bool, factors: Sequence[float] | None
    ) -> Any:
        if not x.is_floating_point():
            raise ValueError(
                f"an image of {x.dtype} is interpolated, which TVM does not support; convert it with .float() before"
            )
        plan = _plan(x, axes, size, factors)
        if (
            taps is linear
            and axes == 2
            and (align_corners or all(step == extent / out for _, extent, out, step in plan))
        ):
            return NotImplemented
        for axis, extent, out, step in plan:
            position = _outputs(out, x)
            if align_corners:
                position = position * ((extent - 1) / (out - 1) if out > 1 else 0.0)
            else:
                position = (position + 0.5) * step - 0.5
                position = position.clamp(min=0) if from_zero else position
            x = _summed(x, axis, taps(position, extent))
        return x

    return decomposition


def _outputs(out: int, x: Tensor) -> Tensor:
    """Their numbers, in float32 for narrower images too, as PyTorch computes positions."""
    return torch.arange(out, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def linear(position: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The two neighbours, the nearer the heavier."""
    first = position.floor()
    share = position - first
    index = first.to(torch.int64)
    return [(index.clamp(max=extent - 1), 1 - share), ((index + 1).clamp(max=extent - 1), share)]


def cubic(position: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """Four neighbours; those beyond an end are the end."""
    first = position.floor()
    share = position - first
    index = first.to(torch.int64)
    distances = [share + 1, share, 1 - share, 2 - share]
    weights = [_far(distances[0]), _near(distances[1]), _near(distances[2]), _far(distances[3])]
    return [
        ((index + offset).clamp(0, extent - 1), weight) for offset, weight in zip(range(-1, 3), weights, strict=True)
    ]


def _near(x: Tensor) -> Tensor:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _far(x: Tensor) -> Tensor:
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC


def _summed(x: Tensor, axis: int, taps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = -1
    parts = [x.index_select(axis, index) * weight.to(x.dtype).reshape(shape) for index, weight in taps]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _plan(
    x: Tensor, axes: int, size: Sequence[int] | None, factors: Sequence[float] | None
) -> list[tuple[int, int, int, float]]:
    """Axis, extent before and after, and inputs per output, of each axis. A given factor decides, not the extents."""
    made = []
    for number in range(axes):
        axis = x.dim() - axes + number
        extent = int(x.shape[axis])
        out = (
            int(size[number]) if size is not None else int(extent * factors[number]) if factors is not None else extent
        )
        made.append((axis, extent, out, 1 / factors[number] if factors is not None else extent / out))
    return made


def _refused(*operands: Any, **options: Any) -> Any:
    raise ValueError("TVM's importer resizes without the anti-aliasing that is asked for; resize before the model")


RESIZING: Mapping[OpOverload, Decomposition] = {
    A.upsample_nearest1d.vec: nearest(1, 0),
    A.upsample_nearest2d.vec: nearest(2, 0),
    A.upsample_nearest3d.vec: nearest(3, 0),
    A._upsample_nearest_exact1d.vec: nearest(1, 0.5),
    A._upsample_nearest_exact2d.vec: nearest(2, 0.5),
    A._upsample_nearest_exact3d.vec: nearest(3, 0.5),
    A.upsample_linear1d.vec: interpolated(1, linear, True),
    A.upsample_bilinear2d.vec: interpolated(2, linear, True),
    A.upsample_trilinear3d.vec: interpolated(3, linear, True),
    A.upsample_bicubic2d.vec: interpolated(2, cubic, False),
    A._upsample_bilinear2d_aa.vec: _refused,
    A._upsample_bilinear2d_aa.default: _refused,
}
