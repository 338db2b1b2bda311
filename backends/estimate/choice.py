"""What kernels cost by counted instructions and LLVM's model of the target's core; the same figures every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..kernels.base import Trial
from ..machines.targets import Target
from .kernel import estimate_kernel

__all__ = ["KernelCycles"]


@dataclass(frozen=True)
class KernelCycles:
    """Cycles of one call of kernels on one core, their data in cache. Raises InputError as `estimate_kernel` does,
    where tools are missing or LLVM has no model of the core.
    """

    target: Target

    def __call__(self, groups: Sequence[Sequence[Trial]]) -> list[list[float]]:
        return [[self._cycles(trial) for trial in group] for group in groups]

    def _cycles(self, trial: Trial) -> float:
        # All have one name, so that equal code is known again.
        named = trial.function.with_attr("global_symbol", "kernel")
        return estimate_kernel(named, self.target, trial.tables, caches=False).cycles
