"""The family of kernels that gather what few weights need: for images in planes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .base import Task
from .convolution import ConvolutionSpec
from .gather import GatherSpec
from .planes import is_planes, pixels
from .skipping import window_of
from .staging import Staging
from .tiles import Machine
from .windows import reads_neighbours, staging_for
from .zeros import GroupCount, Zeros

__all__ = ["GatherFamily"]

_TRIALS = 4
"""Tiles, groups and orders that are worth a trial."""
_FEW_TILES = 2
"""Tiles for each core, below which cores share the channels too."""
_VECTORS = 12
"""Vectors of a tile, of which more save little."""


@dataclass(frozen=True)
class GatherFamily:
    """Layers whose source and result lie in planes."""

    name: str = "gather"

    def candidates(self, task: Task, machine: Machine) -> tuple[GatherSpec, ...]:
        spec, zeros = task.spec, task.sparsity
        if not isinstance(zeros, Zeros) or not (is_planes(spec.source) and is_planes(spec.result)):
            return ()
        if spec.source.dtype != "float32":
            return ()
        staging = None
        if not reads_neighbours(spec):
            staging = staging_for(spec, machine)
            if staging is None:
                return ()
        found = [
            one
            for count in zeros.counts
            for vectors in _vectors(count.blocking.height, pixels(spec.result), machine)
            for one in _orders(spec, zeros, count, vectors, staging, machine)
        ]
        return tuple(sorted(found, key=lambda one: one.cycles(machine))[:_TRIALS])


def _vectors(height: int, count: int, machine: Machine) -> list[int]:
    """How many vectors of pixels a tile of so many channels may have, of a plane of `count` pixels."""
    lanes = machine.lanes()
    weights = -(-height // lanes) if machine.by_lane and height % lanes == 0 else 1
    most = min(_VECTORS, (machine.registers - weights) // (height + 1), -(-count // lanes))
    whole = -(-count // lanes)
    return sorted({-(-whole // -(-whole // vectors)) for vectors in range(1, most + 1)})


def _orders(
    spec: ConvolutionSpec, zeros: Zeros, count: GroupCount, vectors: int, staging: Staging | None, machine: Machine
) -> list[GatherSpec]:
    """All channels of a tile after each other, or all tiles of some channels where there are several."""
    made = GatherSpec(
        **window_of(spec),
        outputs=zeros.rows,
        weights=zeros.weights,
        count=count,
        vectors=vectors,
        lanes=machine.lanes(),
        staging=staging,
        by_lane=machine.by_lane,
        index=machine.index,
        cores=machine.cores,
    )
    if count.chunks > 1:
        return [made]
    tiles = made.tiles * spec.result.batch
    shared = replace(made, parts=machine.cores if tiles < _FEW_TILES * machine.cores else 1)
    return [shared, replace(made, channels_first=True, parts=machine.cores)] if tiles > 1 else [shared]
