"""Convolutions over images in planes whose filters read one channel each, as depthwise ones do.

Vectors run along pixels. Every place of the window is a constant distance from a pixel, and the weights of a filter stay where
they are for all tiles of a plane, so that nothing is looked up but which channel a filter reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from tvm import tirx

from ..dtypes import DTYPES
from ..graph.nodes import Array, Convolution
from . import loops
from .base import Task
from .image import Slots
from .planes import clear_around, inside, is_planes, pixels, zero_between
from .skipping import window_of
from .staging import stage_plane
from .tiles import Machine, streamed_cycles
from .windows import PlaneSpec, last_place, reads_neighbours, staging_for, window_corner, window_places
from .zeros import Zeros

__all__ = ["PlaneDepthwiseFamily", "PlaneDepthwiseSpec"]

_LOAD = 1.0
"""Products that start while a vector within a cache line is loaded."""
_WAITS = 5.0
"""Cycles for each vector in which a core that waits for loads does nothing else."""
_TILE, _PLANE = 6.0, 20.0
"""What starting a tile and a plane costs, in products."""
_MOST = 12
"""Vectors of a tile, of which more save little."""
_TRIALS = 2


@dataclass(frozen=True, kw_only=True)
class PlaneDepthwiseSpec(PlaneSpec):
    """One convolution whose filters read one channel each, with everything its code depends on.

    Each channel is copied, where `staging` says how, by whoever computes its filter.
    """

    family: ClassVar[str] = "plane_depthwise"

    @property
    def taps(self) -> int:
        """Places of the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def workspace(self) -> tuple[int, ...]:
        """For each worker the copy of a channel."""
        return (self.cores * self.staging.size,) if self.staging else ()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights, and of which channel each filter reads."""
        return self.outputs * (self.taps * self.source.element_bytes + 4)

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """Weights and bias by output, where each output's channel begins, and what is a pixel."""
        weights = convolution.weights
        filters = self.outputs // convolution.groups
        read = slots[np.arange(self.outputs) // filters]
        places = self._begins(read)
        tables = (weights.kernel.astype(self.source.dtype).reshape(-1), weights.bias.astype(self.source.dtype), places)
        return (*tables, inside(self.result, self.tiles * self.tile)) if self.result.halo else tables

    def typical(self) -> dict[int, Array]:
        """Every filter reads its own channel."""
        return {3: self._begins(np.arange(self.outputs) % self.source.blocks)}

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core: a load for each product, of which many lie in two cache lines."""
        load = _LOAD * (1.0 + machine.vector_bytes / 64) + (_WAITS if machine.waits_for_loads else 0.0)
        tile = self.taps * self.vectors * max(1.0, load) + 3.0 * self.vectors + _TILE
        planes = self.result.batch * self.outputs * (self.tiles * tile + _PLANE)
        staged = self.result.batch * self.outputs * self.staging.cycles(_LOAD) if self.staging else 0.0
        return streamed_cycles(machine, (planes + staged) / machine.rate, self.weight_bytes)

    def _begins(self, slots: Slots) -> Array:
        """Where the first window begins in each plane."""
        return (window_corner(self) + slots * self.source.block).astype("int32")

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, packed arrays..., leaves..., result, workspace...)``."""
        dtype = self.source.dtype
        arguments: list[tuple[str, Sequence[int], str]] = [
            ("source", *self.source.argument),
            ("weights", (self.outputs * self.taps,), dtype),
            ("bias", (self.outputs,), dtype),
            ("places", (self.outputs,), "int32"),
        ]
        if self.result.halo:
            arguments.append(("inside", (self.tiles * self.tile,), "float32"))
        arguments += [*self.epilogue.arguments(), ("result", *self.result.argument)]
        arguments += [(f"workspace{i}", (size,), dtype) for i, size in enumerate(self.workspace)]
        return loops.kernel(name, arguments, lambda *buffers: _write(self, buffers))


@dataclass(frozen=True)
class PlaneDepthwiseFamily:
    """Layers whose source and result lie in planes, and whose filters read one channel each."""

    name: str = "plane depthwise"

    def candidates(self, task: Task, machine: Machine) -> tuple[PlaneDepthwiseSpec, ...]:
        spec, zeros = task.spec, task.sparsity
        if not isinstance(zeros, Zeros) or not (is_planes(spec.source) and is_planes(spec.result)):
            return ()
        if zeros.columns != spec.kernel[0] * spec.kernel[1] or spec.source.dtype != "float32":
            return ()
        near = reads_neighbours(spec)
        staging = None if near else staging_for(spec, machine)
        if staging is None and not near:
            return ()
        made = PlaneDepthwiseSpec(
            **window_of(spec),
            outputs=zeros.rows,
            weights=zeros.rows * zeros.columns,
            vectors=1,
            lanes=machine.lanes(),
            staging=replace(staging, batch=1, channels=1) if staging else None,
            cores=machine.cores,
        )
        whole = -(-pixels(spec.result) // made.lanes)
        most = min(_MOST, whole, machine.registers - 3)
        tiles = {-(-whole // -(-whole // vectors)) for vectors in range(1, most + 1)}
        found = [replace(made, vectors=vectors) for vectors in sorted(tiles)]
        return tuple(sorted(found, key=lambda one: one.cycles(machine))[:_TRIALS])


def _write(spec: PlaneDepthwiseSpec, buffers: Sequence[loops.Buffer]) -> None:
    """The loops over `buffers`, the arguments of the function."""
    source, weights, bias, places, *rest = buffers
    there = rest.pop(0) if spec.result.halo else None
    leaves, result, workspace = _split(rest, len(spec.epilogue.leaves))
    clear_around(result, spec.result)
    lanes, taps = spec.lanes, window_places(spec, np.zeros(1, "int64"))[0]
    accumulator = DTYPES[spec.source.dtype].accumulator
    with loops.shared(spec.result.batch * spec.outputs, spec.cores) as (worker, work):
        image, channel = (work // spec.outputs, work % spec.outputs) if spec.result.batch > 1 else (0, work)
        read, first = source, loops.table(places, channel) + image * spec.source.image
        if spec.staging:
            read, copy = workspace, worker * spec.staging.size
            stage_plane(spec.staging, spec.source, first, last_place(spec), source, workspace, copy)
            first = copy + int(taps[0])
        with loops.serial(spec.tiles) as turn:
            at = loops.tile_start(turn, spec.tile, spec.reach)
            sums = loops.local(spec.tile, accumulator)
            for vector in range(spec.vectors):
                loops.store(sums, vector * lanes, loops.broadcast(loops.load(bias, channel), lanes), lanes)
            for tap in range(spec.taps):
                weight = loops.broadcast(loops.load(weights, channel * spec.taps + tap), lanes)
                for vector in range(spec.vectors):
                    pixel = loops.load(read, first + at + (int(taps[tap] - taps[0]) + vector * lanes), lanes)
                    total = loops.load(sums, vector * lanes, lanes) + weight * pixel
                    loops.store(sums, vector * lanes, total, lanes)
            for vector in range(spec.vectors):
                position = (image, channel, 0, at + vector * lanes)
                value = spec.epilogue.value(loops.load(sums, vector * lanes, lanes), leaves, position, lanes)
                value = zero_between(spec.result, there, position[3], value, lanes)
                loops.store(result, spec.result.offset(*position), value, lanes)


def _split(
    rest: Sequence[loops.Buffer], leaves: int
) -> tuple[Sequence[loops.Buffer], loops.Buffer, loops.Buffer | None]:
    """Leaves, the result, and the workspace if there is one."""
    return rest[:leaves], rest[leaves], rest[leaves + 1] if len(rest) > leaves + 1 else None
