"""Images from blocks of channels to planes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .image import View, clear_border
from .planes import clear_around, is_planes
from .tiles import Machine

__all__ = ["TransposeSpec"]

Place = tuple[Any, Any]


@dataclass(frozen=True)
class TransposeSpec:
    """The channel in slot ``s`` of the blocks is plane ``s``; there are `channels` planes.

    As many pixels as a block has channels are turned at a time, in registers.
    """

    family: ClassVar[str] = "transpose"

    source: View
    result: View
    channels: int

    @property
    def lanes(self) -> int:
        """Channels of a block."""
        return max(self.source.lanes, self.result.lanes)

    def cycles(self, machine: Machine) -> float:
        """Estimated: for each vector a load, a store, and as many exchanges as halving it takes."""
        view, lanes = self.source, self.lanes
        vectors = view.batch * -(-self.channels // lanes) * view.height * -(-view.width // lanes) * lanes
        return vectors * (8 + 2 * (lanes.bit_length() - 1)) / machine.rate

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, result)``."""
        arguments = [("source", *self.source.argument), ("result", *self.result.argument)]
        body = _to_planes if is_planes(self.result) else _to_blocks
        return loops.kernel(name, arguments, lambda *both: body(self, *both))


def _to_planes(spec: TransposeSpec, source: loops.Buffer, result: loops.Buffer) -> None:
    view, lanes = spec.result, spec.lanes

    def turn(image: Any, block: Any, count: int) -> None:
        with _pixels(view, lanes) as (at, places):
            vectors = [
                loops.number(0.0, lanes, view.dtype)
                if place is None
                else loops.load(source, spec.source.offset(image, block, *place), lanes)
                for place in places
            ]
            turned = _turned(vectors, lanes, view.dtype)
            for lane in range(count):
                loops.store(result, view.offset(image, block * lanes + lane, *at), turned(lane), lanes)
        if view.halo and view.width >= lanes:
            _clear_gaps(result, view, image, block * lanes, count)

    _for_each_block(spec, turn)
    clear_around(result, view)


def _to_blocks(spec: TransposeSpec, source: loops.Buffer, result: loops.Buffer) -> None:
    view, lanes = spec.result, spec.lanes

    def turn(image: Any, block: Any, count: int) -> None:
        with _pixels(spec.source, lanes) as (at, places):
            vectors = [
                loops.load(source, spec.source.offset(image, block * lanes + lane, *at), lanes)
                if lane < count
                else loops.number(0.0, lanes, view.dtype)
                for lane in range(lanes)
            ]
            turned = _turned(vectors, lanes, view.dtype)
            for number, place in enumerate(places):
                if place is not None:
                    loops.store(result, view.offset(image, block, *place), turned(number), lanes)

    clear_border(result, view)
    _for_each_block(spec, turn)


def _clear_gaps(result: loops.Buffer, view: View, image: Any, first: Any, count: int) -> None:
    with loops.serial(count) as channel, loops.serial(view.height) as row, loops.serial(view.halo) as column:
        place = view.offset(image, first + channel, row, view.width + column)
        loops.store(result, place, loops.number(0.0, 1, view.dtype))


def _for_each_block(spec: TransposeSpec, turn: Callable[[Any, Any, int], None]) -> None:
    """Calls `turn` for image, block, and how many channels the block has."""
    whole, rest = divmod(spec.channels, spec.lanes)
    batch = spec.source.batch
    if whole:
        with loops.parallel(batch * whole) as work:
            turn(work // whole if batch > 1 else 0, work % whole, spec.lanes)
    if rest:
        with loops.parallel(batch) as image:
            turn(image, whole, rest)


@contextmanager
def _pixels(planes: View, lanes: int) -> Iterator[tuple[Place, list[Place | None]]]:
    """Loops over all pixels of a plane, so many neighbours at a time: gives the first one, and row and column of each.

    Of rows that are shorter, several are taken with the gaps between them, where no pixel is. What is stored beyond them is
    stored over by the next turn.
    """
    if planes.width >= lanes:
        with loops.serial(planes.height) as row, loops.serial(-(-planes.width // lanes)) as number:
            left = loops.tile_start(number, lanes, planes.width)
            yield (row, left), [(row, left + place) for place in range(lanes)]
        return
    rows = min(planes.height, max(1, lanes // planes.row))
    with loops.serial(-(-planes.height // rows)) as number:
        top = loops.tile_start(number, rows, planes.height)
        at = [divmod(place, planes.row) for place in range(lanes)]
        there = [(top + row, column) if row < rows and column < planes.width else None for row, column in at]
        yield (top, 0), there


def _turned(vectors: list[Any], lanes: int, dtype: str) -> Callable[[int], Any]:
    """A square of vectors, of which element ``i`` of vector ``j`` becomes element ``j`` of vector ``i``.

    Squares of 1, 2, 4, ... elements beside its diagonal change places.
    """
    halves = [loops.local(lanes * lanes // 2, dtype) for _ in range(2)]

    def place(number: int) -> tuple[loops.Buffer, int]:
        return halves[number % 2], number // 2 * lanes

    def register(number: int) -> Any:
        return loops.load(*place(number), lanes)

    for number, vector in enumerate(vectors):
        loops.store(*place(number), vector, lanes)
    for size in (1 << power for power in range(lanes.bit_length() - 1)):
        for number in range(lanes):
            if not number & size:
                pair = [register(number), register(number + size)]
                upper = [element if not element & size else lanes + (element ^ size) for element in range(lanes)]
                lower = [element ^ size if not element & size else lanes + element for element in range(lanes)]
                swapped = [_kept(loops.picked(pair, chosen), lanes, dtype) for chosen in (upper, lower)]
                loops.store(*place(number), swapped[0], lanes)
                loops.store(*place(number + size), swapped[1], lanes)
    return register


def _kept(vector: Any, lanes: int, dtype: str) -> Any:
    """`vector` as it is now: what it was made of may be stored over."""
    room = loops.local(lanes, dtype)
    loops.store(room, 0, vector, lanes)
    return loops.load(room, 0, lanes)
