"""The ways in which one convolution can be computed: register tiles, and Winograd's algorithm where it applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .convolution import ConvolutionSpec, panel_rows
from .tiles import Machine, choose_tile, ranked_tiles, strided
from .winograd import WinogradSpec, depth_of

__all__ = ["Candidate", "alternatives", "fitted", "winograd_alternatives"]

_DIRECT = 3
"""Register tiles of the direct algorithm that are worth a trial."""
_PRODUCT = 2
"""Register tiles of Winograd's products."""
_SHORT, _MANY = 32, 24
"""Products of an output that LLVM may write out; vector registers from which on that does no harm."""
_LEAST_CHUNK = 16
"""Tiles below which a chunk reads its weights too seldom to be worth a thread of its own."""


@dataclass(frozen=True)
class Candidate:
    """One way to compute a layer: a specification, from which its kernel is built."""

    spec: ConvolutionSpec | WinogradSpec

    @property
    def family(self) -> str:
        """What its kernels are named after."""
        return self.spec.family

    def function(self, name: str) -> Any:
        """The TIR function."""
        return self.spec.function(name)

    @property
    def weights(self) -> int:
        """Numbers in the packed weights."""
        spec = self.spec
        row = spec.tile.blocks * spec.result.lanes
        if isinstance(spec, WinogradSpec):
            return spec.panels * spec.points * spec.channels * row
        return spec.tiles * panel_rows(spec) * row

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the convolution as it is defined, unused lanes included."""
        result = self.spec.result
        outputs = result.batch * result.blocks * result.height * result.width * result.lanes
        if isinstance(self.spec, WinogradSpec):
            return outputs * self.spec.channels * 9
        return outputs * panel_rows(self.spec)


def fitted(spec: ConvolutionSpec, machine: Machine, steps: int) -> ConvolutionSpec:
    """`spec` with the best tile by the estimate, and what else of it depends on the machine.

    `steps` are the products of one output.
    """
    result = spec.result
    return replace(
        spec,
        tile=choose_tile(strided(machine, spec.stride[1]), result.blocks, result.height, result.width, steps),
        by_lane=machine.by_lane and spec.source.lanes == machine.lanes,
        one_loop=steps <= _SHORT and machine.registers < _MANY,
        cores=machine.cores,
    )


def alternatives(spec: ConvolutionSpec, machine: Machine, sizes: Sequence[int]) -> tuple[Candidate, ...]:
    """The direct kernel as given, then others for the same layer; `sizes` are the Winograd tiles allowed (2, 4)."""
    if spec.banded:
        return (Candidate(spec),)
    result = spec.result
    tiles = ranked_tiles(strided(machine, spec.stride[1]), result.blocks, result.height, result.width, panel_rows(spec))
    others = [tile for tile in tiles[:_DIRECT] if tile != spec.tile]
    direct = [spec, *(replace(spec, tile=tile) for tile in others)]
    return (*map(Candidate, direct), *(found for size in sizes for found in winograd_alternatives(spec, machine, size)))


def _transforms(machine: Machine, size: int) -> Literal["tile", "axis", "line"]:
    """What fits the registers: the vectors of a tile, or those of a few lines that LLVM works on at once."""
    if (size + 2) ** 2 <= machine.registers:
        return "tile"
    return "axis" if 3 * (size + 2) <= machine.registers else "line"


def winograd_alternatives(spec: ConvolutionSpec, machine: Machine, size: int) -> tuple[Candidate, ...]:
    """The layer by Winograd's algorithm with tiles of `size`; none where it does not apply."""
    source, result = spec.source, spec.result
    unit = spec.kernel == (3, 3) and spec.stride == spec.dilation == (1, 1)
    if not unit or spec.banded or source.lanes != result.lanes or min(result.height, result.width) < size:
        return ()
    channels = spec.blocks * source.lanes if not spec.rest else (spec.blocks - 1) * source.lanes + spec.rest
    tiles = result.batch * -(-result.height // size) * -(-result.width // size)
    depth = depth_of(source.lanes, machine.by_lane)
    room = machine.l2_bytes // 2 // (4 * (size + 2) ** 2 * -(-channels // depth) * depth)
    most = max(_LEAST_CHUNK, room)
    shared = tiles >= 2 * machine.cores * _LEAST_CHUNK
    parts = -(-tiles // most)
    if shared:
        parts = -(-parts // machine.cores) * machine.cores
    chunk = -(-tiles // parts)
    return tuple(
        Candidate(
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
                transforms=_transforms(machine, size),
            )
        )
        for tile in ranked_tiles(machine, result.blocks, 1, chunk, channels)[:_PRODUCT]
    )
