"""What ``x[:, i, None, mask]`` reads or writes: which axes are indexed, and where the others are in what is found there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ..values import Operation, shape_of

__all__ = ["Indexed", "indexed_by"]

_TRUTH = (torch.bool, torch.uint8)


@dataclass(frozen=True)
class Indexed:
    """Axes of the tensor that ``index`` and ``index_put`` index.

    Attributes:
        axes: the axes that are indexed, in order; a mask takes as many as it has.
        order: for every axis of what is found there, the axis of the tensor that it is; None for those of the indices.
        mask: the mask, if it is the only index.
    """

    axes: tuple[int, ...]
    order: tuple[int | None, ...]
    mask: fx.Node | None


def indexed_by(op: Operation) -> Indexed:
    """Reads the argument ``indices`` of a call."""
    used: list[fx.Node] = []
    axes: list[int] = []
    widths, parts, axis, follows = [0], 0, 0, False
    for index in op["indices"]:
        truth = index is not None and index.meta["val"].dtype in _TRUTH
        taken = len(shape_of(index)) if truth else 1
        if index is not None:
            used.append(index)
            axes.extend(range(axis, axis + taken))
            widths.append(1 if truth else len(shape_of(index)))
            parts += not follows
        follows = index is not None
        axis += taken
    rest = [axis for axis in range(len(shape_of(op["self"]))) if axis not in axes]
    before = sum(axis < axes[0] for axis in rest) if axes and parts == 1 else 0  # Parted indices go to the front.
    order = (*rest[:before], *(None,) * max(widths), *rest[before:])
    mask = used[0] if len(used) == 1 and used[0].meta["val"].dtype in _TRUTH else None
    return Indexed(tuple(axes), order, mask)
