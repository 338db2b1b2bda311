"""The family of the direct kernel: which register tiles a layer may be computed with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Task
from .convolution import ConvolutionSpec, panel_rows
from .integer_convolution import IntegerConvolutionSpec
from .paired_convolution import PairedConvolutionSpec
from .planes import is_planes
from .tiles import Machine, choose_tile, ranked_tiles, strided

__all__ = ["DirectFamily", "fitted"]

_TRIALS = 4
"""Register tiles that are worth a trial."""
_SHORT_SUM, _MANY_REGISTERS = 32, 24
"""Products of an output that LLVM may write out; vector registers from which on that does no harm."""


@dataclass(frozen=True)
class DirectFamily:
    """The task as it is given, which is the default, then with other tiles."""

    name: str = "direct"

    def candidates(self, task: Task, machine: Machine) -> tuple[ConvolutionSpec, ...]:
        spec, result = task.spec, task.spec.result
        if isinstance(spec, IntegerConvolutionSpec | PairedConvolutionSpec):  # Its instructions are not those of codes.
            return ()
        if is_planes(result) and machine.lanes() > 1:  # It takes the channels of a block together, and here are none.
            return ()
        if spec.banded:
            return (spec,)
        machine = machine.one_by_one(spec.source.dtype)
        steps = panel_rows(spec)
        height = 1 if spec.skips[0] else result.height
        tiles = ranked_tiles(strided(machine, spec.stride[1]), result.blocks, height, result.width, steps)
        # Of as many blocks and pixels the first: others differ little in what they load.
        shapes = {(tile.blocks, tile.pixels): tile for tile in reversed((*tiles, spec.tile))}
        others = [tile for tile in tiles if tile is shapes[tile.blocks, tile.pixels]][:_TRIALS]
        return (spec, *(replace(spec, tile=tile) for tile in others if tile != spec.tile))


def fitted(spec: ConvolutionSpec, machine: Machine, steps: int) -> ConvolutionSpec:
    """`spec` with the best tile by the estimate, and what else of it depends on the machine.

    `steps` are the products of one output.
    """
    result = spec.result
    machine = machine.one_by_one(spec.source.dtype)
    height = 1 if spec.skips[0] else result.height
    return replace(
        spec,
        tile=choose_tile(strided(machine, spec.stride[1]), result.blocks, height, result.width, steps),
        by_lane=machine.by_lane and spec.source.lanes == machine.lanes(spec.source.dtype) and not spec.source.is_code,
        one_loop=steps <= _SHORT_SUM and machine.registers < _MANY_REGISTERS,
        cores=machine.cores,
    )
