"""The family of Winograd's algorithm: to which layers it applies, and how their work is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..dtypes import DTYPES
from .base import Task
from .image import View
from .planes import is_planes
from .tiles import Machine, ranked_tiles
from .winograd import WinogradSpec, depth_of

__all__ = ["WinogradFamily"]

_TRIALS = 2
"""Register tiles of the products that are worth a trial."""
_LEAST_CHUNK = 16
"""Tiles below which a chunk reads its weights too seldom to be worth a thread of its own."""


@dataclass(frozen=True)
class WinogradFamily:
    """3x3 convolutions of stride 1, on tiles of `size` x `size` outputs."""

    size: int

    @property
    def name(self) -> str:
        return f"winograd {self.size}x{self.size}"

    def candidates(self, task: Task, machine: Machine) -> tuple[WinogradSpec, ...]:
        spec, size = task.spec, self.size
        source, result = spec.source, spec.result
        unit = spec.kernel == (3, 3) and spec.stride == spec.dilation == (1, 1)
        if not unit or spec.banded or source.lanes != result.lanes or min(result.height, result.width) < size:
            return ()
        if is_planes(result) and machine.lanes() > 1:  # It takes the channels of a block together, and here are none.
            return ()
        if not DTYPES[source.dtype].is_floating_point:  # Its transforms have fractions.
            return ()
        channels = spec.blocks * source.lanes if not spec.rest else (spec.blocks - 1) * source.lanes + spec.rest
        tiles = result.batch * -(-result.height // size) * -(-result.width // size)
        shared = tiles >= 2 * machine.cores * _LEAST_CHUNK
        chunk = self._chunk(tiles, channels, shared, source, machine)
        return tuple(
            WinogradSpec(
                source=source,
                result=result,
                channels=channels,
                padding=spec.padding,
                size=size,
                chunk=chunk,
                split="tiles" if shared else "channels",
                workers=machine.cores,
                tile=tile,
                epilogue=spec.epilogue,
                by_lane=machine.by_lane,
                transforms=self._transforms(machine.for_sums(source.dtype)),
            )
            for tile in ranked_tiles(machine.for_sums(source.dtype), result.blocks, 1, chunk, channels)[:_TRIALS]
        )

    def _chunk(self, tiles: int, channels: int, shared: bool, source: View, machine: Machine) -> int:
        """Tiles that are worked on at a time: as many as leave half of the level-2 cache free, and equally many for all."""
        depth = depth_of(source.lanes, machine.by_lane)
        point = DTYPES[DTYPES[source.dtype].accumulator].bytes * -(-channels // depth) * depth
        room = machine.l2_bytes // 2 // (point * (self.size + 2) ** 2)
        parts = -(-tiles // max(_LEAST_CHUNK, room))
        if shared:
            parts = -(-parts // machine.cores) * machine.cores
        return -(-tiles // parts)

    def _transforms(self, machine: Machine) -> Literal["tile", "axis", "line"]:
        """What fits the registers: the vectors of a tile, or those of a few lines that LLVM works on at once."""
        if (self.size + 2) ** 2 * machine.wide <= machine.registers:
            return "tile"
        return "axis" if 3 * (self.size + 2) * machine.wide <= machine.registers else "line"
