"""Structures whose units are boxes: so many filters, by so many input channels, at one kernel position or at all of them.

Choosing the boxes of the highest sums is the Euclidean projection where the sums are of squares: the distance of a tensor to
itself without some boxes is the sum over those.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import LayerShape, Structure, check_share, first_index, multiple_of, named_unit
from .block_rows import BlockRows
from .packed import Packed
from .ranking import highest

__all__ = ["Boxes"]


@dataclass(frozen=True)
class Boxes(Structure):
    """What they share: every box is kept as a whole or zero as a whole, and the boxes of a layer are ranked together."""

    whole: ClassVar[bool] = False
    """Whether a box has all kernel positions."""

    @property
    @abstractmethod
    def box(self) -> tuple[int, int]:
        """Filters and input channels of a box."""

    def unit_weights(self, shape: LayerShape) -> int:
        filters, channels = self.box
        return filters * channels * (shape.positions if self.whole else 1)

    def fits(self, shape: LayerShape) -> str:
        return multiple_of(shape, *self.box)

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Of shape filters/box x channels/box x kernel positions (1 for whole kernels)."""
        filters, channels = self.box
        rows, columns = scores.shape[0] // filters, scores.shape[1] // channels
        sums = scores.reshape(rows, filters, columns, channels, -1).sum((1, 3))
        return sums.sum(-1, keepdim=True) if self.whole else sums

    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        check_share(sparsity)
        units = self.unit_scores(scores)
        kept = max(1, units.numel() - round(sparsity * units.numel()))
        return self.spread(highest(units, kept), scores)

    def spread(self, units: Tensor, like: Tensor) -> Tensor:
        """One entry a unit as one a weight, in the shape of `like`."""
        filters, channels = self.box
        rows, columns, _ = units.shape
        positions = like.numel() // (like.shape[0] * like.shape[1])
        boxes = units[:, None, :, None, :].expand(rows, filters, columns, channels, positions)
        return boxes.reshape(like.shape)

    def broken(self, weight: Tensor) -> str:
        low, high = self.extremes((weight != 0).view(torch.uint8))
        partly = low != high
        if not bool(partly.any()):
            return ""
        (filters, _), index = self.box, first_index(partly)
        rows = weight[index[0] * filters : (index[0] + 1) * filters]
        count = int(self.unit_scores((rows != 0).to(torch.int32))[0, index[1], index[2]])
        where, full = self.located(index, kernel_position=weight.dim() > 2), self.unit_weights(LayerShape.of(weight))
        return f"{where}: {count} of {full} weights are there, not all or none"

    def extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The smallest and the largest value of every unit."""
        filters, channels = self.box
        parts = values.reshape(values.shape[0] // filters, filters, values.shape[1] // channels, channels, -1)
        axes = (1, 3, 4) if self.whole else (1, 3)
        low, high = parts.amin(axes, keepdim=True), parts.amax(axes, keepdim=True)
        return low[:, 0, :, 0], high[:, 0, :, 0]

    def located(self, index: list[int], kernel_position: bool) -> str:
        (filters, channels), (row, column, position) = self.box, index
        places = {"filter": (row * filters, filters), "input_channel": (column * channels, channels)}
        if kernel_position and not self.whole:
            places["kernel_position"] = (position, 1)
        return named_unit(**places)

    def pack(self, weight: Tensor) -> Packed:
        return BlockRows.pack(weight, *self.box, whole=self.whole)
