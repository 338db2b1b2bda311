"""Images in planes, a channel each, for kernels whose vectors run along the pixels of a plane.

A row of a plane is followed by a gap as wide as the border, which is the right border of that row and the left one of the
next. So all pixels of a plane are one row of neighbours, whatever its width is, and every load of a convolution of stride 1
is of neighbours too: pixel ``p`` of the row needs pixel ``p + offset`` of every channel. Between the rows, what is computed
belongs to no pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from ..graph.nodes import Array
from . import loops
from .image import View

__all__ = ["LINE", "clear_around", "inside", "is_planes", "pixels", "plane_view", "zero_between"]

LINE = 16
"""Elements in a cache line, and no fewer than in a vector of any machine."""


def plane_view(
    batch: int,
    channels: int,
    height: int,
    width: int,
    halo: int,
    pitch: int,
    dtype: str = "float32",
    flat: bool = False,
) -> View:
    """An image of planes alone in its buffer, `pitch` elements from row to row, of which `halo` or more are a gap.

    First pixels lie at the start of cache lines, and planes an odd number of lines apart, so that they do not share sets of
    a cache. A vector may begin at the last pixel of a plane without reaching the next, and reach far beyond that of an image.
    """
    around = _border(halo, pitch, flat)
    before = -(-around // LINE) * LINE
    row = (height - 1) * pitch + width
    lines = -(-(before + row + max(around, LINE)) // LINE) | 1
    image = channels * lines * LINE
    size = batch * image + 3 * LINE
    return View(batch, channels, height, width, 1, halo, size, before, image, lines * LINE, pitch, 1, dtype, flat=flat)


def _border(halo: int, pitch: int, flat: bool) -> int:
    """Elements of the border before the first pixel of a plane, and behind its last."""
    return halo if flat else halo * (pitch + 1)


def is_planes(view: View) -> bool:
    """Whether an image lies in planes whose rows are rows of neighbours."""
    return view.lanes == view.column == 1


def pixels(view: View) -> int:
    """Elements from the first pixel of a plane to its last."""
    return (view.height - 1) * view.row + view.width


def inside(view: View, size: int) -> Array:
    """1 for each of `size` elements from the first pixel on that is a pixel, 0 for those between rows and behind the last."""
    found = np.zeros((view.height + size // view.row + 1, view.row), "float32")
    found[: view.height, : view.width] = 1
    return found.reshape(-1)[:size]


def clear_around(buffer: loops.Buffer, view: View) -> None:
    """Writes the zeros before the first row of every plane and behind its last; those between rows are the kernel's."""
    if not view.halo:
        return
    zero = loops.number(0.0, 1, view.dtype)
    count = _border(view.halo, view.row, view.flat)
    with view.planes() as (image, channel):
        first = view.offset(image, channel, 0, 0)
        with loops.serial(count) as element:
            loops.store(buffer, first - count + element, zero)
            loops.store(buffer, first + pixels(view) + element, zero)


def zero_between(view: View, there: loops.Buffer | None, at: Any, value: Any, lanes: int) -> Any:
    """A vector from element `at` of a plane, with zeros where no pixel is, if somebody reads them: `there` is `inside`."""
    if there is None:
        return value
    shown = loops.load(there, at, lanes) > loops.number(0.5, lanes)
    return tirx.Select(shown, value, loops.number(0.0, lanes, view.dtype))
