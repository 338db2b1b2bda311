"""Images in the channel-blocked layout, and weights packed to meet them.

Channel ``c`` of an image lies in slot ``slots[c]``: block ``slot // lanes``, lane ``slot % lanes``. Slots
need not be in order or without gaps. That makes concatenation a copy of whole blocks, and slices, channel
shuffles and flattening no work at all: the weights of whoever reads the image are packed for its slots,
with zeros in the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dtypes import DTYPES
from ..kernels.image import Slots, View
from ..kernels.tiles import Machine
from ..kernels.words import CODES
from .steps import Value

__all__ = [
    "Image",
    "as_blocks",
    "as_planes",
    "channels_last_view",
    "dense_view",
    "flattened",
    "in_a_row",
    "one_pixel",
    "pack_image",
    "pack_vector",
    "selected",
    "thin",
]

_LINE = 16
"""Elements in a cache line; a multiple of every target's lanes."""
_NEIGHBOURS = 3
"""Pixels that are read with another one, at most."""


@dataclass(frozen=True, eq=False)
class Image:
    """A value that was computed: the step that does (its result has one dimension), how it lies there, and its channels'
    slots.
    """

    value: Value
    view: View
    slots: Slots

    @property
    def wasteful(self) -> bool:
        """Whether gaps are more than a reader should carry along."""
        room = self.view.blocks * self.view.lanes
        return room > len(self.slots) * 1.3 + self.view.lanes


def thin(machine: Machine) -> int:
    """Channels up to which an input is not blocked: most lanes of its block would be empty.

    Where multiply-adds take a lane, one load brings all channels of a pixel, and blocks are always worth it.
    """
    return 0 if machine.pixel_registers == 1 else 4


def dense_view(
    batch: int,
    blocks: int,
    height: int,
    width: int,
    lanes: int,
    halo: int,
    dtype: str = "float32",
    flat: bool = False,
) -> View:
    """An image alone in its buffer. Behind codes there is room: kernels read four neighbouring pixels of them at once."""
    above = 0 if flat else halo
    row = (width + 2 * halo) * lanes
    block = (height + 2 * above) * row
    image = blocks * block
    if batch > 1 and height == width == 1:
        # Rows of a matrix are read side by side; a power of two apart they would share a cache set.
        image += _LINE
    start = above * row + halo * lanes
    size = batch * image + (_NEIGHBOURS * lanes if DTYPES[dtype].is_code else 0)
    return View(batch, blocks, height, width, lanes, halo, size, start, image, block, row, lanes, dtype, flat=flat)


def channels_last_view(
    batch: int, channels: int, height: int, width: int, halo: int, dtype: str, flat: bool = False
) -> View:
    """An image of codes alone in its buffer whose pixels have their channels side by side, in whole words where that is no
    waste. Behind it there is room for the rest of a word.
    """
    pitch = channels if channels < CODES - 1 else -(-channels // CODES) * CODES
    row = (width + 2 * halo) * pitch
    above = 0 if flat else halo
    image = (height + 2 * above) * row
    size, start = batch * image + CODES, above * row + halo * pitch
    return View(batch, channels, height, width, 1, halo, size, start, image, 1, row, pitch, dtype, flat=flat)


def selected(image: Image, source: Slots) -> Image:
    """The channels `source` of `image`, without moving anything but the ends of the view."""
    slots = image.slots[source]
    first, last = int(slots.min()) // image.view.lanes, int(slots.max()) // image.view.lanes
    view = replace(image.view, start=image.view.start + first * image.view.block, blocks=last - first + 1)
    return Image(image.value, view, slots - first * image.view.lanes)


def flattened(image: Image) -> Image:
    """``(N, C, H, W)`` read as ``(N, C * H * W)``, one pixel with many channels; a halo becomes gaps."""
    view, lanes = image.view, image.view.lanes
    above, left = view.rim
    plane = view.start - above * view.row - left * view.column
    pixels = (np.arange(view.height) + above)[:, None] * (view.row // lanes)
    pixels = (pixels + (np.arange(view.width) + left) * (view.column // lanes)).reshape(-1)
    # Channels that lie side by side reach over the whole plane.
    beside = view.block < view.row
    blocks = (view.height + 2 * above) * (view.row // lanes) if beside else view.blocks * (view.block // lanes)
    base = (image.slots // lanes) * (view.block // lanes)
    slots = (base[:, None] + pixels[None, :]) * lanes + (image.slots % lanes)[:, None]
    flat = replace(view, blocks=blocks, height=1, width=1, halo=0, start=plane, block=lanes, row=lanes)
    return Image(image.value, flat, slots.reshape(-1))


def in_a_row(view: View) -> View | None:
    """The pixels of `view` as one row, when they follow each other in memory; a batch of pixels counts as a
    row.
    """
    if view.height == view.width == 1:
        step = view.image if view.batch > 1 else view.column
        return replace(view, batch=1, width=view.batch, image=0, row=0, column=step, halo=0)
    if view.row == view.width * view.column:
        return replace(view, height=1, width=view.height * view.width, row=0)
    return None


def pack_vector(vector: npt.NDArray[Any], slots: Slots, result: View, dtype: str) -> npt.NDArray[Any]:
    """One number for each channel, by slot of `result`."""
    packed = np.zeros(result.blocks * result.lanes, dtype)
    packed[slots] = vector
    return packed


def pack_image(image: npt.NDArray[Any], slots: Slots, view: View, dtype: str) -> npt.NDArray[Any]:
    """Numbers ``(N, C, H, W)``, one for each pixel, as `view` has them, by slot."""
    number, y, x = (np.arange(extent).reshape(-1, *[1] * rest) for extent, rest in zip(
        (image.shape[0], *image.shape[2:]), (3, 1, 0), strict=True))  # fmt: skip
    slot = np.asarray(slots).reshape(-1, 1, 1)
    packed = np.zeros(view.size, dtype)
    lanes = view.lanes
    pixel = view.start + number * view.image + y * view.row + x * view.column
    packed[pixel + slot // lanes * view.block + slot % lanes] = image
    return packed


def as_planes(view: View) -> View:
    """An image of one pixel, in blocks that follow each other, as one in planes: so do its channels in either."""
    return replace(view, blocks=view.blocks * view.lanes, lanes=1, block=1, row=1, column=1)


def as_blocks(view: View, lanes: int) -> View:
    """An image of one pixel in planes as one in blocks; the last may reach beyond its channels."""
    return replace(view, blocks=-(-view.blocks // lanes), lanes=lanes, block=lanes, row=lanes, column=lanes)


def one_pixel(view: View) -> bool:
    """Whether it is that of `as_planes` and `as_blocks`."""
    return view.height == view.width == 1 and view.block == view.lanes
