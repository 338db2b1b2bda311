"""The weighted layer: a convolution, a transposed convolution or a linear layer, as everything that prunes sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from .values import shape_of

__all__ = ["Layer"]


@dataclass(frozen=True, eq=False)
class Layer:
    """What one call of a weighted layer reads, and where channels lie in it.

    Attributes:
        source: the value whose channels are mixed.
        axis: the axis of input channels in `source`, and of output channels in the result.
        weight: rank 2 or more; stored, or computed from other values.
        bias: of length output channels, or None.
        out_axis: axis of `weight` with the output channels; with those of one group if `transposed`.
        in_axis: axis of `weight` with the input channels of one group; with all of them if `transposed`.
        groups: blocks of channels that are not mixed with one another.
        transposed: a transposed convolution, whose weight is input channels x output channels of a group x taps.
        taps: size of the kernel along each axis of the image; empty for a linear layer.
    """

    source: fx.Node
    axis: int
    weight: fx.Node
    bias: fx.Node | None
    out_axis: int
    in_axis: int
    groups: int = 1
    transposed: bool = False
    taps: tuple[Any, ...] = ()

    @property
    def convolution(self) -> bool:
        """Whether the axes behind the channel axis are an image."""
        return bool(self.taps)

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input and one output channel."""
        return self.groups > 1 and shape_of(self.weight)[:2] == (self.groups, 1)
