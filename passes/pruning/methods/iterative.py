"""Iterative magnitude pruning: the smallest of the weights that a training left, level after level.

Frankle et al., "Stabilizing the Lottery Ticket Hypothesis", 2019, arXiv:1903.01611; DNNShifter's way. The training between the
levels, and where weights go back to before it, are those of `driver.training.levels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, fx

from ..scores import Evidence
from ..weights import weight_masks
from .base import WeightMethod

__all__ = ["Iterative"]


@dataclass(frozen=True)
class Iterative(WeightMethod):
    """Takes the smallest of all weights that are left, over the whole network."""

    name = "iterative"
    follows: ClassVar[bool] = True

    @property
    def scored_by(self) -> str:
        return "magnitude"

    def masks(
        self,
        module: fx.GraphModule,
        evidence: Evidence,
        sparsity: float,
        *,
        before: Mapping[str, Tensor] | None = None,
        ignore: tuple[str, ...] = (),
    ) -> dict[str, Tensor]:
        """What was masked before stays so, and counts."""
        found = weight_masks(module, evidence, "magnitude", sparsity, rounds=1, ignore=ignore, masks=before)
        return dict(found.masks)
