"""Kernels that compute every pixel from the same pixel of other images: arithmetic, and joining channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border, moving_cycles
from .tiles import Machine

__all__ = ["ConcatSpec", "ElementwiseSpec"]


@dataclass(frozen=True)
class ElementwiseSpec:
    """An epilogue without an anchor, `together` pixels at a time: more than one in planes, and of codes in blocks whose pixels
    lie side by side.
    """

    family: ClassVar[str] = "elementwise"

    result: View
    epilogue: Epilogue
    together: int = 1

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return moving_cycles(self.result, self.together, len(self.epilogue.leaves))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(leaves..., result)``."""
        arguments = [*self.epilogue.arguments(), ("result", *self.result.argument)]
        return loops.kernel(name, arguments, lambda *buffers: _elementwise(self, *buffers))


@dataclass(frozen=True)
class ConcatSpec:
    """Images joined block by block; their channels keep their lanes. `together` is as in ElementwiseSpec."""

    family: ClassVar[str] = "concat"

    parts: tuple[View, ...]
    result: View
    epilogue: Epilogue
    together: int = 1

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return moving_cycles(self.result, self.together, 1 + len(self.epilogue.leaves))

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(parts..., leaves..., result)``."""
        arguments: list[tuple[str, Sequence[int], str]] = [
            *[(f"part{i}", *part.argument) for i, part in enumerate(self.parts)],
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _concat(self, *buffers))


def _elementwise(spec: ElementwiseSpec, *buffers: loops.Buffer) -> None:
    leaves, result = buffers[:-1], buffers[-1]
    view = spec.result
    clear_border(result, view)
    lanes = view.lanes * spec.together
    with view.lines() as (image, block, row, _), view.columns(spec.together) as column:
        position = (image, block, row, column)
        loops.store(result, view.offset(*position), spec.epilogue.value(None, leaves, position, lanes), lanes)


def _concat(spec: ConcatSpec, *buffers: loops.Buffer) -> None:
    parts, leaves, result = buffers[: len(spec.parts)], buffers[len(spec.parts) : -1], buffers[-1]
    view, lanes = spec.result, spec.result.lanes * spec.together
    clear_border(result, view)
    first = 0
    for buffer, part in zip(parts, spec.parts, strict=True):
        with part.lines() as (image, block, row, _), view.columns(spec.together) as column:
            position = (image, first + block, row, column)
            pixel = loops.load(buffer, part.offset(image, block, row, column), lanes)
            loops.store(result, view.offset(*position), spec.epilogue.value(pixel, leaves, position, lanes), lanes)
        first += part.blocks
