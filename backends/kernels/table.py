"""What 256 codes become, looked up one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View, clear_border
from .tiles import Machine

__all__ = ["TableSpec"]

_CODES = 256
_LOOK_UP = 1.5
"""Cycles for a code: it is loaded, is an address, and what lies there is put in its place."""


@dataclass(frozen=True)
class TableSpec:
    """Result pixel ``(y, x)`` is the entry of the table for the source's, codes counted from the least.

    Attributes:
        dtype: of the table.
        entries: of one table for all channels, or of one for each slot of a channel.
    """

    family: ClassVar[str] = "table"

    source: View
    result: View
    epilogue: Epilogue
    dtype: str
    entries: int = _CODES

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        result = self.result
        return _LOOK_UP * result.batch * result.blocks * result.height * result.width * result.lanes

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, table, leaves..., result)``; a table has 256 codes."""
        arguments = [
            ("source", *self.source.argument),
            ("table", (self.entries,), self.dtype),
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _body(self, *buffers))


def _body(spec: TableSpec, source: loops.Buffer, table: loops.Buffer, *rest: loops.Buffer) -> None:
    leaves, result = rest[:-1], rest[-1]
    view, lanes = spec.result, spec.result.lanes
    least = -_CODES // 2 if spec.source.dtype == "int8" else 0
    clear_border(result, view)
    with view.lines() as (image, block, row, _), loops.serial(view.width) as column:
        position = (image, block, row, column)
        found = loops.local(lanes, spec.dtype)
        for lane in range(lanes):
            code = loops.converted(loops.load(source, spec.source.offset(*position) + lane), "int32")
            own = (block * lanes + lane) * _CODES if spec.entries > _CODES else 0
            loops.store(found, lane, loops.load(table, own + code - least))
        value = spec.epilogue.value(loops.load(found, 0, lanes), leaves, position, lanes)
        loops.store(result, view.offset(*position), value, lanes)
