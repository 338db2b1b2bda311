"""What a kernel costs: the interface, and an analytic model for machines that cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..kernels.alternatives import Candidate
from ..kernels.convolution import ConvolutionSpec, panel_rows
from ..kernels.tiles import Machine, tile_cycles
from ..kernels.winograd import WinogradSpec, transform

__all__ = ["AnalyticCost", "Cost"]


_WAITS = 0.5
"""Share of the reading that an in-order core does not hide."""


class Cost(Protocol):
    """Compares candidates: times or cycles, comparable within one call; lower is better.

    `layers` holds the candidates of several layers, so that an implementation can build and run them together.
    """

    def __call__(self, layers: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        """A figure for every candidate of every layer."""
        ...


@dataclass(frozen=True)
class AnalyticCost:
    """Cycles by counting: vector products and loads of the inner loop, weights streamed from memory, transforms.

    Compute and the stream of weights overlap; what a core reads from memory in a cycle follows from the target's clock and
    bandwidth. So Winograd's larger weights are not taken where the board's memory is too slow for them.
    """

    machine: Machine

    def __call__(self, layers: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        return [[self.cycles(candidate) for candidate in layer] for layer in layers]

    def cycles(self, candidate: Candidate) -> float:
        """Estimated cycles of one call on one core."""
        spec = candidate.spec
        return self._winograd(spec) if isinstance(spec, WinogradSpec) else self._direct(spec)

    def depthwise(self, channels: int, pixels: int, kernel: tuple[int, int]) -> float:
        """Cycles of a depthwise convolution: for every vector of outputs, its products, and a load and a store."""
        blocks = -(-channels // self.machine.lanes)
        return blocks * pixels * (kernel[0] * kernel[1] / self.machine.rate + 3) + 20 * blocks

    def _direct(self, spec: ConvolutionSpec) -> float:
        result = spec.result
        rows = panel_rows(spec)
        compute = result.batch * tile_cycles(spec.tile, self.machine, result.blocks, result.height, result.width, rows)
        weights = 4 * spec.tiles * rows * spec.tile.blocks * result.lanes
        return self._with_memory(compute, weights)

    def _winograd(self, spec: WinogradSpec) -> float:
        chunks = -(-spec.tiles // spec.chunk)
        product = tile_cycles(spec.tile, self.machine, spec.result.blocks, 1, spec.chunk, spec.channels)
        compute = chunks * spec.points * product
        weights = 4 * spec.panels * spec.points * spec.channels * spec.tile.blocks * spec.result.lanes
        reread = (chunks - 1) * weights / 4 if weights > self.machine.l2_bytes else 0.0
        return self._with_memory(compute, weights + reread) + self._transforms(spec)

    def _with_memory(self, compute: float, read: float) -> float:
        """Cycles of computing while `read` bytes come from memory. Cores that run in order wait for some of them."""
        memory = read / self.machine.stream_bytes
        waits = _WAITS * min(compute, memory) if self.machine.in_order else 0.0
        return max(compute, memory) + waits

    def _transforms(self, spec: WinogradSpec) -> float:
        """Every vector of a transform is loaded, combined and stored once; spilled ones once more."""
        moves = transform(spec.size)
        count = spec.size + 2
        operations = 2 * count * sum(int((matrix != 0).sum()) for matrix in moves.source)
        spilled = max(0, spec.points - self.machine.registers)
        blocks = -(-spec.channels // spec.source.lanes)
        source = blocks * (operations / self.machine.rate + 2 * spec.points + 2 * spilled)
        back = (count + spec.size) * sum(int((matrix != 0).sum()) for matrix in moves.result)
        result = spec.result.blocks * (back / self.machine.rate + spec.points + 3 * spec.size**2)
        return float(spec.tiles * (source + result))
