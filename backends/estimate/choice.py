"""What kernels cost by counted instructions and LLVM's model of the target's core; the same figures every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.alternatives import Candidate
from ..machines.targets import Target
from .kernel import estimate_kernel

__all__ = ["CycleCost", "KernelCycles"]

_ITEM_BYTES = 4


@dataclass(frozen=True)
class KernelCycles:
    """Cycles of one call of TIR functions on one core, their data in cache. Raises InputError as `CycleCost` does."""

    target: Target

    def __call__(self, functions: Mapping[str, Any]) -> dict[str, float]:
        return {
            name: estimate_kernel(function.with_attr("global_symbol", name), self.target, caches=False).cycles
            for name, function in functions.items()
        }


@dataclass(frozen=True)
class CycleCost:
    """Cycles of one call on one core: the larger of what the code needs and what its weights take to come from memory.

    Weights are read once in a pass of a network, so they are not in a cache when their layer begins. Raises InputError as
    `estimate_kernel` does, where tools are missing or LLVM has no model of the core.
    """

    target: Target

    def __call__(self, layers: Sequence[Sequence[Candidate]]) -> list[list[float]]:
        return [[self.cycles(candidate) for candidate in layer] for layer in layers]

    def cycles(self, candidate: Candidate) -> float:
        """Modelled cycles of a candidate."""
        code = estimate_kernel(candidate.function(candidate.family), self.target, caches=False).cycles
        return max(code, _ITEM_BYTES * candidate.weights / self.target.machine.stream_bytes)
