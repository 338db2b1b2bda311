"""Padding, cropping and thinning out of the image area, where no convolution takes it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border, moving_cycles
from .tiles import Machine

__all__ = ["FrameSpec"]


@dataclass(frozen=True)
class FrameSpec:
    """Result pixel ``(y, x)`` is source pixel ``(y, x) * step - origin``, or `fill` outside of the source."""

    family: ClassVar[str] = "frame"

    source: View
    result: View
    origin: tuple[int, int]
    step: tuple[int, int]
    fill: float
    epilogue: Epilogue

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return moving_cycles(self.result, 1, 1 + len(self.epilogue.leaves))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, leaves..., result)``."""
        arguments = [
            ("source", *self.source.argument),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def _body(spec: FrameSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.result, spec.result.lanes
    clear_border(result, view)
    with view.lines() as (image, block, row, _), loops.serial(view.width) as column:
        position = (image, block, row, column)
        value = spec.epilogue.value(_pixel(spec, source, position), leaves, position, lanes)
        loops.store(result, view.offset(*position), value, lanes)


def _pixel(spec: FrameSpec, source: loops.Buffer, position: tuple[Any, Any, Any, Any]) -> Any:
    """Outside, the nearest pixel is read and not used, so that every access stays within the buffer."""
    image, block, *place = position
    lanes = spec.result.lanes
    wanted = [at * step - origin for at, step, origin in zip(place, spec.step, spec.origin, strict=True)]
    extents = (spec.source.height, spec.source.width)
    near = [
        tirx.max(loops.at_most(at, extent - 1), tirx.const(0, "int32"))
        for at, extent in zip(wanted, extents, strict=True)
    ]
    pixel = loops.load(source, spec.source.offset(image, block, near[0], near[1]), lanes)
    inside = tirx.all(tirx.EQ(near[0], wanted[0]), tirx.EQ(near[1], wanted[1]))
    return tirx.Select(loops.broadcast(inside, lanes), pixel, loops.number(spec.fill, lanes, spec.source.dtype))
