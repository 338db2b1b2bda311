"""How an image lies in memory, and the work every kernel has with its border."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dtypes import DTYPES
from . import loops

__all__ = ["Slots", "View", "clear_border", "moving_cycles"]

_WORD = 4

Slots = npt.NDArray[np.int64]
"""For every channel of an image, which lane of which block it lies in: ``block * lanes + lane``."""


@dataclass(frozen=True)
class View:
    """An image of ``batch x blocks x height x width x lanes`` elements of type `dtype` in a flat buffer of `size` elements.

    A border of `halo` pixels surrounds every plane, so that a convolution reads its padding without a test: zeros, or
    of codes the one that stands for zero. `row`, `column`, `block` and `image` are distances in elements; a distance of
    0 repeats the element (a gate that is the same for every pixel). With `flat` the border is left and right of rows only, as
    lines have it: whoever reads the image pads it no other way.
    """

    batch: int
    blocks: int
    height: int
    width: int
    lanes: int
    halo: int
    size: int
    start: int
    image: int
    block: int
    row: int
    column: int
    dtype: str = "float32"
    border: int = 0
    flat: bool = False

    @property
    def rim(self) -> tuple[int, int]:
        """Rows of the border above and below, and its columns left and right."""
        return 0 if self.flat else self.halo, self.halo

    @property
    def argument(self) -> tuple[tuple[int], str]:
        """Shape and dtype of its buffer, as a kernel takes it."""
        return (self.size,), self.dtype

    @property
    def element_bytes(self) -> int:
        return DTYPES[self.dtype].bytes

    @property
    def is_code(self) -> bool:
        """Whether its elements are codes of quantised values."""
        return DTYPES[self.dtype].is_code

    @property
    def repeats(self) -> bool:
        """Whether all pixels of an image are the same element."""
        return self.row == self.column == 0

    def offset(self, image: Any, block: Any, row: Any, column: Any) -> Any:
        """Offset of the first lane; rows and columns count from the first pixel inside the halo."""
        return self.start + image * self.image + block * self.block + row * self.row + column * self.column

    @contextmanager
    def planes(self) -> Iterator[tuple[Any, Any]]:
        """A parallel loop over all planes: gives image and block."""
        with loops.parallel(self.batch * self.blocks) as work:
            yield (work // self.blocks, work % self.blocks) if self.batch > 1 else (0, work)

    @contextmanager
    def lines(self, parts: int = 1) -> Iterator[tuple[Any, Any, Any, Any]]:
        """A parallel loop over the rows of all planes, each in so many parts: gives image, block, row and part."""
        with loops.parallel(self.batch * self.blocks * self.height * parts) as work:
            line = work // parts
            image = line // (self.blocks * self.height) if self.batch > 1 else 0
            yield image, (line // self.height) % self.blocks, line % self.height, work % parts

    @contextmanager
    def columns(self, together: int) -> Iterator[Any]:
        """A loop over the columns of a row, so many at a time; the last ones are computed again where that does not divide."""
        with loops.serial(-(-self.width // together)) as turn:
            yield loops.tile_start(turn, together, self.width)


def moving_cycles(result: View, together: int, reads: float) -> float:
    """Estimated cycles of a kernel that does little but load `reads` vectors for each that it stores."""
    vectors = result.batch * result.blocks * result.height * -(-result.width // together)
    return vectors * (reads + 1.0)


def clear_border(buffer: loops.Buffer, view: View) -> None:
    """Writes the border of every plane; buffers are used again for other values between runs."""
    if not view.halo:
        return
    if view.lanes == view.block == 1 and view.column % _WORD == 0:  # Channels side by side: four of them at once.
        view = replace(view, blocks=view.column // _WORD, lanes=_WORD, block=_WORD)
    (rows, halo), lanes = view.rim, view.lanes
    columns = view.width + 2 * halo
    zero = loops.number(view.border, lanes, view.dtype)
    with view.planes() as (image, block):
        corner = view.offset(image, block, 0, 0) - rows * view.row - halo * view.column
        if rows:
            with loops.serial(rows) as row, loops.serial(columns) as column:
                loops.store(buffer, corner + row * view.row + column * view.column, zero, lanes)
                bottom = corner + (row + view.height + rows) * view.row
                loops.store(buffer, bottom + column * view.column, zero, lanes)
        with loops.serial(view.height) as row, loops.serial(halo) as column:
            left = corner + (row + rows) * view.row + column * view.column
            loops.store(buffer, left, zero, lanes)
            loops.store(buffer, left + (halo + view.width) * view.column, zero, lanes)
