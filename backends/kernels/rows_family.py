"""The family of kernels whose vectors run along output channels: for images in blocks, of one pixel or more."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Task
from .convolution import ConvolutionSpec
from .dots import DotsSpec
from .row_zeros import RowZeros
from .rows import RowsSpec
from .skipping import window_of
from .tiles import Machine
from .zeros import GroupCount

__all__ = ["RowsFamily"]

_TRIALS = 3
"""Groups and tiles that are worth a trial."""
_SUMS = 4
"""Independent sums that keep the multipliers busy."""
_MOST_VECTORS = 4
"""Of channels, up to which there are registers for several pixels."""
_FEW_PIXELS = 16
"""Up to which sums may wait in memory."""


@dataclass(frozen=True)
class RowsFamily:
    """Layers of one group of channels, whose source and result lie in blocks."""

    name: str = "rows"

    def candidates(self, task: Task, machine: Machine) -> tuple[RowsSpec | DotsSpec, ...]:
        spec, zeros = task.spec, task.sparsity
        if not isinstance(zeros, RowZeros) or spec.source.dtype != "float32" or spec.banded or spec.skips[0]:
            return ()
        tiles = [one for count in zeros.counts for one in _tiles(spec, zeros, count, machine)]
        found: list[RowsSpec | DotsSpec] = [*tiles]
        if machine.lanes() > 1:  # Else a group of one row is the same.
            found.append(_dots(spec, zeros, machine))
        return tuple(sorted(found, key=lambda one: one.cycles(machine))[:_TRIALS])


def _tiles(spec: ConvolutionSpec, zeros: RowZeros, count: GroupCount, machine: Machine) -> list[RowsSpec]:
    """With as many pixels as registers hold, and with fewer."""
    vectors, width = count.blocking.height // spec.result.lanes, spec.result.width
    left = machine.registers - vectors
    ahead = machine.pixel_registers
    most = min(width, left // (vectors + ahead) if ahead else (left - 1) // vectors)
    if vectors > _MOST_VECTORS:
        most = min(most, 1)
    made = RowsSpec(
        **window_of(spec),
        outputs=zeros.rows,
        weights=zeros.weights,
        count=count,
        columns=1,
        splits=1,
        parts=min(machine.cores, count.groups),
        index=machine.index,
    )
    if made.waits and made.pixels > _FEW_PIXELS:
        return []
    columns = {-(-width // -(-width // fewer)) for fewer in range(1, most + 1)}
    # Pixels that are computed twice would be added twice.
    columns = {one for one in columns if not made.waits or width % one == 0}
    return [replace(made, columns=one, splits=_splits(vectors * one, left - 1)) for one in sorted(columns)]


def _splits(sums: int, registers: int) -> int:
    """How often every sum is kept."""
    splits = 1
    while sums * splits < _SUMS and 2 * sums * splits <= registers:
        splits *= 2
    return splits


def _dots(spec: ConvolutionSpec, zeros: RowZeros, machine: Machine) -> DotsSpec:
    return DotsSpec(
        **window_of(spec),
        outputs=zeros.rows,
        weights=zeros.weights,
        steps=zeros.steps,
        parts=min(machine.cores, spec.result.blocks),
    )
