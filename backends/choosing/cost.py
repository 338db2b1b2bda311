"""What candidates cost: by a judge that is given their kernels, or by a formula for machines that cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..kernels.base import Spec, Trial, trial_of
from ..kernels.tiles import Machine

__all__ = ["AnalyticCost", "Costs", "Judge", "Judged"]

Costs = Callable[[Sequence[Sequence[Spec]]], list[list[float]]]
"""A figure for every candidate of every layer, lower is better, comparable within a layer."""


class Judge(Protocol):
    """Says what kernels cost. A group are kernels that compute the same."""

    def __call__(self, groups: Sequence[Sequence[Trial]]) -> list[list[float]]:
        """Seconds, or cycles, of one call of each; lower is better, comparable within a group.

        All groups are given at once, so that a judge can build and run them together.
        """
        ...


@dataclass(frozen=True)
class Judged:
    """Candidates by their kernels.

    Attributes:
        least: what a candidate takes at least, whatever its code: a judge that has all data in caches does not see weights
            come from memory.
    """

    judge: Judge
    least: Callable[[Spec], float] | None = None

    def __call__(self, layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        figures = self.judge([[trial_of(spec) for spec in layer] for layer in layers])
        if self.least is None:
            return figures
        return [
            [max(figure, self.least(spec)) for spec, figure in zip(layer, row, strict=True)]
            for layer, row in zip(layers, figures, strict=True)
        ]


@dataclass(frozen=True)
class AnalyticCost:
    """Cycles by counting: vector products and loads of the inner loop, weights streamed from memory, transforms.

    Compute and the stream of weights overlap; what a core reads from memory in a cycle follows from the target's clock and
    bandwidth. So Winograd's larger weights are not taken where the board's memory is too slow for them.
    """

    machine: Machine

    def __call__(self, layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        return [[spec.cycles(self.machine) for spec in layer] for layer in layers]
