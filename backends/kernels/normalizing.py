"""Group normalisation of images in blocks, of which instance normalisation and that over whole images are cases.

As `legalizations.statistics` has it for what is foreign: sums in float64 and in two passes, and the mean is subtracted as the
sum of two float32 numbers, so that what is left of numbers far from zero is as exact as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border, moving_cycles
from .tiles import Machine

__all__ = ["NormalizeSpec"]

_WIDE = "float64"
_PARTS = 4
"""Sums of a channel that do not wait for each other."""


@dataclass(frozen=True)
class NormalizeSpec:
    """Every group of channels of every image less its mean, divided by the root of its variance and `epsilon`; then times a
    factor and plus an offset for each channel.

    Attributes:
        channels: of the image, which lie in slots of a table where it is `tabled`, else one after the other.
        groups: equal shares of them.
    """

    family: ClassVar[str] = "normalize"

    source: View
    result: View
    channels: int
    groups: int
    epsilon: float
    tabled: bool
    epilogue: Epilogue

    @property
    def slots(self) -> int:
        """Of an image, unused ones among them."""
        return self.source.blocks * self.source.lanes

    @property
    def workspace(self) -> tuple[int, ...]:
        """Of each channel of each image: a float64 sum in the place of two numbers, a mean as two numbers, and what it is
        multiplied by.
        """
        slots = self.source.batch * self.slots
        return (2 * slots, slots, slots, slots)

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: two sums in a type twice as wide, and what is written."""
        return moving_cycles(self.result, 1, 6 + len(self.epilogue.leaves))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, scale, shift[, slots], leaves..., result, workspace...)``; scale and shift by slot."""
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("scale", (self.slots,), "float32"),
            ("shift", (self.slots,), "float32"),
            *([("slots", (self.channels,), "int32")] if self.tabled else []),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
            *[(f"workspace{number}", (size,), "float32") for number, size in enumerate(self.workspace)],
        ]
        return loops.kernel(name, arguments, lambda *buffers: _Body(self, buffers).write())


class _Body:
    def __init__(self, spec: NormalizeSpec, buffers: Sequence[loops.Buffer]) -> None:
        self.spec = spec
        self.source, self.scale, self.shift, *rest = buffers
        self.table = rest.pop(0) if spec.tabled else None
        *leaves, self.result = rest[: -len(spec.workspace)]
        self.leaves = leaves
        self.totals, self.near, self.rest, self.factor = rest[-len(spec.workspace) :]

    def write(self) -> None:
        spec = self.spec
        clear_border(self.result, spec.result)
        with loops.serial(spec.workspace[1]) as slot:  # Of lanes that no channel uses nothing else is written.
            for buffer in (self.near, self.rest, self.factor):
                loops.store(buffer, slot, loops.number(0.0))
        self._sums(lambda value: value)
        self._each_group(self._mean)
        self._sums(lambda deviation: deviation * deviation)
        self._each_group(self._factor)
        self._results()

    def _deviation(self, position: tuple[Any, Any, Any, Any]) -> Any:
        """A pixel less the mean; the mean is zero before it is known."""
        lanes = self.spec.source.lanes
        slot = self._first(position[0], position[1])
        pixel = loops.load(self.source, self.spec.source.offset(*position), lanes)
        return (pixel - loops.load(self.near, slot, lanes)) - loops.load(self.rest, slot, lanes)

    def _first(self, image: Any, block: Any) -> Any:
        """The slot of a block's first channel among those of all images."""
        return image * self.spec.slots + block * self.spec.source.lanes

    def _sums(self, of: Any) -> None:
        """Of each channel over all its pixels, in float64 all the way: squares of large numbers are no float32."""
        view, lanes = self.spec.source, self.spec.source.lanes
        parts = next(parts for parts in range(_PARTS, 0, -1) if view.width % parts == 0)
        with view.planes() as (image, block):
            sums = loops.local(parts * lanes, _WIDE)
            with loops.unroll(parts) as part:
                loops.store(sums, part * lanes, loops.number(0.0, lanes, _WIDE), lanes)
            with (
                loops.serial(view.height) as row,
                loops.serial(view.width // parts) as turn,
                loops.unroll(parts) as part,
            ):
                value = self._deviation((image, block, row, turn * parts + part))
                value = of(loops.converted(value, _WIDE, lanes))
                loops.store(sums, part * lanes, loops.load(sums, part * lanes, lanes) + value, lanes)
            whole = sum((loops.load(sums, part * lanes, lanes) for part in range(1, parts)), loops.load(sums, 0, lanes))
            bits = tirx.reinterpret(f"float32x{2 * lanes}", whole)
            loops.store(self.totals, 2 * self._first(image, block), bits, 2 * lanes)

    def _each_group(self, write: Any) -> None:
        """Calls `write` with the slots of a group's channels and the sum of all of them, divided by their number."""
        spec = self.spec
        size, pixels = spec.channels // spec.groups, spec.source.height * spec.source.width
        with loops.parallel(spec.source.batch * spec.groups) as work:
            image, group = (work // spec.groups, work % spec.groups) if spec.source.batch > 1 else (0, work)

            def slot(channel: Any) -> Any:
                number = group * size + channel
                return image * spec.slots + (number if self.table is None else loops.table(self.table, number))

            total = loops.local(1, _WIDE)
            loops.store(total, 0, loops.number(0.0, 1, _WIDE))
            with loops.serial(size) as channel:
                one = tirx.reinterpret(_WIDE, loops.load(self.totals, 2 * slot(channel), 2))
                loops.store(total, 0, loops.load(total, 0) + one)
            loops.store(total, 0, loops.load(total, 0) / loops.number(size * pixels, 1, _WIDE))
            with loops.serial(size) as channel:
                write(slot(channel), loops.load(total, 0))

    def _mean(self, slot: Any, mean: Any) -> None:
        loops.store(self.near, slot, loops.converted(mean, "float32"))
        rest = mean - loops.converted(loops.load(self.near, slot), _WIDE)
        loops.store(self.rest, slot, loops.converted(rest, "float32"))

    def _factor(self, slot: Any, variance: Any) -> None:
        root = tirx.sqrt(variance + loops.number(self.spec.epsilon, 1, _WIDE))
        within = slot % self.spec.slots
        factor = loops.number(1.0, 1, _WIDE) / root * loops.converted(loops.load(self.scale, within), _WIDE)
        loops.store(self.factor, slot, loops.converted(factor, "float32"))

    def _results(self) -> None:
        view, lanes = self.spec.result, self.spec.result.lanes
        with view.lines() as (image, block, row, _), loops.serial(view.width) as column:
            position = (image, block, row, column)
            factor = loops.load(self.factor, self._first(image, block), lanes)
            value = self._deviation(position) * factor + loops.load(self.shift, block * lanes, lanes)
            value = self.spec.epilogue.value(value, self.leaves, position, lanes)
            loops.store(self.result, view.offset(*position), value, lanes)
