"""Transposed convolutions: the convolutions of their phases (`graph.phases`), each of which writes every so many-th output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from tvm import tirx

from ..graph.nodes import Array, Convolution
from . import loops
from .convolution import ConvolutionSpec
from .depthwise import DepthwiseSpec
from .epilogue import Epilogue
from .image import Slots, View, clear_border
from .tiles import Machine

__all__ = ["InterleavedSpec", "part_of"]


@dataclass(frozen=True)
class InterleavedSpec:
    """The layer of `phases`, one after the other.

    Attributes:
        taps: of each phase, which rows and columns of the kernel are its own, as `graph.phases.Phase` has them.
        result: all outputs; that of each phase is a part of it (`part_of`), and so is what its epilogue reads.
    """

    family: ClassVar[str] = "interleaved"

    phases: tuple[ConvolutionSpec | DepthwiseSpec, ...]
    taps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    result: View
    epilogue: Epilogue

    @property
    def source(self) -> View:
        """Where its input lies."""
        return self.phases[0].source

    @property
    def workspace(self) -> tuple[int, ...]:
        """It needs none."""
        return ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer as it is defined, unused lanes included."""
        return sum(phase.macs for phase in self.phases)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the packed weights."""
        return sum(phase.weight_bytes for phase in self.phases)

    def pack(self, convolution: Convolution, slots: Slots) -> tuple[Array, ...]:
        """What each phase's kernel reads of its part of the kernel."""
        packed: list[Array] = []
        for phase, (rows, columns) in zip(self.phases, self.taps, strict=True):
            kernel = convolution.weights.kernel[:, :, rows][:, :, :, columns]
            packed += phase.pack(replace(convolution, weights=replace(convolution.weights, kernel=kernel)), slots)
        return tuple(packed)

    def cycles(self, machine: Machine) -> float:
        """Estimated cycles of one call on one core."""
        return sum(phase.cycles(machine) for phase in self.phases)

    def function(self, name: str) -> tirx.PrimFunc:
        """The TIR function ``(source, packed arrays of each phase..., leaves..., result)``."""
        packed = [
            (f"{kind}{number}", shape, dtype)
            for number, phase in enumerate(self.phases)
            for kind, shape, dtype in phase.packed
        ]
        arguments = [
            ("source", *self.source.argument),
            *packed,
            *self.epilogue.arguments(),
            ("result", *self.result.argument),
        ]
        return loops.kernel(name, arguments, lambda *buffers: _write(self, *buffers))


def part_of(view: View, first: tuple[int, int], size: tuple[int, int], stride: tuple[int, int]) -> View:
    """Every so many-th row and column of an image, without its border; of one that repeats, the same."""
    if view.repeats:
        return view
    return replace(
        view,
        height=size[0],
        width=size[1],
        halo=0,
        flat=False,
        start=view.start + first[0] * view.row + first[1] * view.column,
        row=stride[0] * view.row,
        column=stride[1] * view.column,
    )


def _write(spec: InterleavedSpec, source: loops.Buffer, *rest: loops.Buffer) -> None:
    result, leaves = rest[-1], rest[len(rest) - 1 - len(spec.epilogue.leaves) : -1]
    clear_border(result, spec.result)
    first = 0
    for phase in spec.phases:
        count = len(phase.packed)
        phase.write(source, *rest[first : first + count], *leaves, result)
        first += count
