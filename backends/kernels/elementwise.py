"""Kernels that compute every pixel from the same pixel of other images: arithmetic, and joining channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border

__all__ = ["ConcatSpec", "ElementwiseSpec"]


@dataclass(frozen=True)
class ElementwiseSpec:
    """An epilogue without an anchor."""

    family: ClassVar[str] = "elementwise"

    result: View
    epilogue: Epilogue

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(leaves..., result)``."""
        arguments = [*self.epilogue.arguments(), ("result", *self.result.argument)]
        return loops.kernel(name, arguments, lambda *buffers: _elementwise(self, *buffers))


@dataclass(frozen=True)
class ConcatSpec:
    """Images joined block by block; their channels keep their lanes."""

    family: ClassVar[str] = "concat"

    parts: tuple[View, ...]
    result: View
    epilogue: Epilogue

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
    with view.lines() as (image, block, row, _), loops.serial(view.width) as column:
        position = (image, block, row, column)
        value = spec.epilogue.value(None, leaves, position, view.lanes)
        loops.store(result, view.offset(*position), value, view.lanes)


def _concat(spec: ConcatSpec, *buffers: loops.Buffer) -> None:
    parts, leaves, result = buffers[: len(spec.parts)], buffers[len(spec.parts) : -1], buffers[-1]
    view = spec.result
    clear_border(result, view)
    first = 0
    for buffer, part in zip(parts, spec.parts, strict=True):
        with part.lines() as (image, block, row, _), loops.serial(view.width) as column:
            position = (image, first + block, row, column)
            pixel = loops.load(buffer, part.offset(image, block, row, column), view.lanes)
            value = spec.epilogue.value(pixel, leaves, position, view.lanes)
            loops.store(result, view.offset(*position), value, view.lanes)
        first += part.blocks
