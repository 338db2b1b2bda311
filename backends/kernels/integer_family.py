"""The family of convolutions of codes with sums of products: which register tiles a layer may be computed with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Task
from .integer_convolution import IntegerConvolutionSpec, steps_of
from .integer_sparse import sparse_spec
from .integer_tiles import dot_tiles
from .paired_convolution import PairedConvolutionSpec
from .tiles import Machine

__all__ = ["IntegerFamily"]

_TRIALS = 4
"""Register tiles that are worth a trial."""


@dataclass(frozen=True)
class IntegerFamily:
    """The task as it is given, which is the default, with other tiles, and by the weights that are not zero."""

    name: str = "integer"

    def candidates(self, task: Task, machine: Machine) -> tuple[IntegerConvolutionSpec | PairedConvolutionSpec, ...]:
        spec = task.spec
        if isinstance(spec, PairedConvolutionSpec):
            return (spec,)
        if not isinstance(spec, IntegerConvolutionSpec):
            return ()
        if spec.banded:  # Its bands are those of its tile.
            return (spec,)
        tiles = dot_tiles(spec, spec.dot, machine, steps_of(spec))
        shapes = {(tile.blocks, tile.pixels): tile for tile in reversed((*tiles, spec.tile))}
        others = [tile for tile in tiles if tile is shapes[tile.blocks, tile.pixels]][:_TRIALS]
        plain = replace(spec, vectors=0)
        found = [plain, *(replace(plain, tile=tile) for tile in others if tile != spec.tile)]
        sparse = sparse_spec(spec, machine)
        return (*found, *([sparse] if sparse is not None else []))
