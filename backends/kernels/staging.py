"""Images in planes copied so that a convolution with a stride, or of an image with another pitch, reads neighbours.

Rows and columns are dealt out to as many phases as the strides have steps: output pixel ``p`` then needs pixel
``p + offset`` of a phase, for every place of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import loops
from .image import View
from .planes import LINE

__all__ = ["Staging", "stage", "stage_plane", "staging_of"]


@dataclass(frozen=True)
class Staging:
    """Planes ``(image, row phase, column phase, channel, row, column)``.

    Attributes:
        batch, channels: of the source.
        steps: phases of rows and of columns: the strides.
        rows, columns: of each that are read.
        pitch: elements from row to row; those of the result.
        lanes: columns that are copied at a time.
    """

    batch: int
    channels: int
    steps: tuple[int, int]
    rows: int
    columns: int
    pitch: int
    lanes: int

    @property
    def plane(self) -> int:
        """Elements from plane to plane."""
        return (-(-(self.rows * self.pitch + LINE) // LINE) | 1) * LINE

    @property
    def image(self) -> int:
        """Elements from image to image."""
        return self.steps[0] * self.steps[1] * self.channels * self.plane

    @property
    def size(self) -> int:
        """Elements of all, and of a vector that reaches beyond the last."""
        return self.batch * self.image + 2 * LINE

    def place(self, channel: Any, row: int, column: int) -> Any:
        """Where the first output's pixel at a row and a column of the window is."""
        phase = (row % self.steps[0]) * self.steps[1] + column % self.steps[1]
        at = row // self.steps[0] * self.pitch + column // self.steps[1]
        return (phase * self.channels + channel) * self.plane + at

    def cycles(self, load: float) -> float:
        """Estimated, in units of a vector product, of which a load or store takes `load`."""
        vectors = -(-self.columns // self.lanes)
        # Of two vectors of neighbours every second element is one of a phase.
        reads = 1 if self.steps[1] == 1 else 2
        return self.batch * self.channels * self.steps[0] * self.steps[1] * self.rows * vectors * (reads + 2) * load


def staging_of(
    source: View, result: View, window: tuple[int, int], stride: tuple[int, int], lanes: int
) -> Staging | None:
    """For a window that is so many rows high and columns wide, from its first pixel to its last; None where rows of the
    result are not far enough apart for it.
    """
    rows = result.height + (window[0] - 1) // stride[0]
    columns = result.width + (window[1] - 1) // stride[1]
    if columns > result.row:
        return None
    # A vector may reach beyond the last row of the last plane; images that are alone in their buffer end there.
    beyond = source.start + (source.batch - 1) * source.image + (source.blocks - 1) * source.block
    beyond += (source.height + source.rim[0] - 1) * source.row + stride[1] * (columns + lanes)
    fits = stride[1] <= 2 and beyond <= source.size and source.column == 1
    return Staging(source.batch, source.blocks, stride, rows, columns, result.row, lanes if fits else 1)


def stage(
    spec: Staging, source: View, corner: int, last: tuple[int, int], given: loops.Buffer, copy: loops.Buffer
) -> None:
    """Copies all planes of `given`.

    Args:
        corner: the pixel that the first output's window begins at, from the start of an image.
        last: the last row and column, from there, that any window has. What is beyond is not read twice as far.
    """
    phases = spec.steps[0] * spec.steps[1]
    with loops.parallel(spec.batch * phases * spec.channels) as work:
        channel, phase = work % spec.channels, work // spec.channels % phases
        image = work // (spec.channels * phases) if spec.batch > 1 else 0
        begin = corner + image * source.image + channel * source.block
        target = image * spec.image + (phase * spec.channels + channel) * spec.plane
        _phase(spec, source, begin, phase, last, given, copy, target)


def stage_plane(
    spec: Staging, source: View, begin: Any, last: tuple[int, int], given: loops.Buffer, copy: loops.Buffer, target: Any
) -> None:
    """Copies one plane, whose first window begins at `begin`, to `target`; `spec` is of one image and channel."""
    with loops.serial(spec.steps[0] * spec.steps[1]) as phase:
        _phase(spec, source, begin, phase, last, given, copy, target + phase * spec.plane)


def _phase(
    spec: Staging,
    source: View,
    begin: Any,
    phase: Any,
    last: tuple[int, int],
    given: loops.Buffer,
    copy: loops.Buffer,
    target: Any,
) -> None:
    with loops.serial(spec.rows) as row, loops.serial(-(-spec.columns // spec.lanes)) as turn:
        column = loops.tile_start(turn, spec.lanes, spec.columns)
        at_row = loops.at_most(row * spec.steps[0] + phase // spec.steps[1], last[0])
        at_column = column * spec.steps[1] + phase % spec.steps[1]
        if spec.lanes == 1:
            at_column = loops.at_most(at_column, last[1])
        pixel = _pixels(spec, given, begin + at_row * source.row + at_column * source.column)
        loops.store(copy, target + row * spec.pitch + column, pixel, spec.lanes)


def _pixels(spec: Staging, given: loops.Buffer, start: Any) -> Any:
    """A vector of those that are `steps` apart."""
    if spec.lanes == 1 or spec.steps[1] == 1:
        return loops.load(given, start, spec.lanes)
    both = [loops.load(given, start + half * spec.lanes, spec.lanes) for half in range(2)]
    return loops.picked(both, range(0, 2 * spec.lanes, 2))
