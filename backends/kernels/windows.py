"""Convolutions over images in planes: where each place of their window is in the input, from a pixel of the result."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.nodes import Array
from . import loops
from .convolution import ConvolutionSpec
from .image import Slots
from .planes import LINE, pixels
from .skipping import SkippingSpec
from .staging import Staging, stage, staging_of
from .tiles import Machine

__all__ = [
    "PlaneSpec",
    "last_place",
    "reads_neighbours",
    "staging_for",
    "window_corner",
    "window_places",
    "window_source",
]


@dataclass(frozen=True, kw_only=True)
class PlaneSpec(SkippingSpec):
    """From planes to planes, the vectors running along pixels.

    Attributes:
        source: without `staging`, rows are as far apart as those of the result and its border covers the padding.
        vectors: of pixels in a register tile.
        lanes: pixels of a vector.
        staging: how the input is copied before.
        cores: that share the work.
    """

    vectors: int
    lanes: int
    staging: Staging | None = None
    cores: int = 1

    @property
    def tile(self) -> int:
        """Pixels of a tile."""
        return self.vectors * self.lanes

    @property
    def tiles(self) -> int:
        """Tiles of a plane."""
        return -(-pixels(self.result) // self.tile)

    @property
    def reach(self) -> int:
        """Pixels of a plane in whole vectors: tiles that end there begin with vectors, and what is behind the last pixel is
        the plane's own.
        """
        return -(-pixels(self.result) // self.lanes) * self.lanes


def window_places(spec: PlaneSpec, slots: Slots) -> Array:
    """Of each input channel and each place of the window, where the first output's pixel is in an image: ``(channels,
    places)``.
    """
    row, column = np.divmod(np.arange(spec.kernel[0] * spec.kernel[1]), spec.kernel[1])
    row, column = row * spec.dilation[0], column * spec.dilation[1]
    if spec.staging:
        placed = [spec.staging.place(slots, int(y), int(x)) for y, x in zip(row, column, strict=True)]
        return np.stack(placed, axis=1)
    found = window_corner(spec) + row * spec.source.row + column * spec.source.column
    return np.asarray(slots[:, None] * spec.source.block + found[None, :])


def window_source(spec: PlaneSpec, source: loops.Buffer, copy: loops.Buffer | None) -> tuple[loops.Buffer, int]:
    """What the window's places are read from, copied there first if need be, and elements from image to image."""
    if spec.staging is None:
        return source, spec.source.image
    stage(spec.staging, spec.source, window_corner(spec), last_place(spec), source, copy)
    return copy, spec.staging.image


def last_place(spec: PlaneSpec) -> tuple[int, int]:
    """The last row and column that the last output's window has, from where the first one's begins."""
    area = zip((spec.result.height, spec.result.width), spec.stride, spec.kernel, spec.dilation, strict=True)
    row, column = ((count - 1) * stride + (extent - 1) * step for count, stride, extent, step in area)
    return row, column


def window_corner(spec: PlaneSpec) -> int:
    """Where the window of the first output begins, in an image."""
    above, left = spec.padding
    return spec.source.start - above * spec.source.row - left * spec.source.column


def reads_neighbours(spec: ConvolutionSpec) -> bool:
    """Whether pixel ``p + offset`` of the source is what pixel ``p`` of the result needs, for each place of a window."""
    source, result, window = spec.source, spec.result, _extent(spec)
    right = window[1] - 1 - spec.padding[1] + result.width - source.width
    # A vector may reach beyond the last pixel of the last plane; images that are alone in their buffer end there.
    first = source.start + (source.batch - 1) * source.image + (source.blocks - 1) * source.block
    offset = (window[0] - 1 - spec.padding[0]) * source.row + window[1] - 1 - spec.padding[1]
    return (
        spec.stride == (1, 1)
        and source.row == result.row
        and source.row >= source.width + max(spec.padding[1], right)
        and first + offset + -(-pixels(result) // LINE) * LINE <= source.size
    )


def staging_for(spec: ConvolutionSpec, machine: Machine) -> Staging | None:
    """How the source is copied so that windows read neighbours; None where it cannot be."""
    return staging_of(spec.source, spec.result, _extent(spec), spec.stride, machine.lanes())


def _extent(spec: ConvolutionSpec) -> tuple[int, int]:
    """Rows and columns from the first place of a window to its last."""
    height, width = ((extent - 1) * step + 1 for extent, step in zip(spec.kernel, spec.dilation, strict=True))
    return height, width
