"""SR-STE: sparse-refined straight-through estimator (Zhou et al., 2021, arXiv 2102.04010), for N:M and every other structure.

The network computes with masked weights, and trains the dense ones behind them. Masks are found anew after every step,

    V = mask(W) W,    g_W = dL/dV + lambda (1 - mask(W)) W,

so that the gradient of masked weights goes straight to the dense ones, and those that are masked decay: a weight of which the
gradient does not keep saying so does not come back. The authors train from scratch with it, without a phase of retraining.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from .base import Moment, State, Weights
from .constrained import ConstrainedHooks, ConstrainedMethod, by_name, mask_changes, named

__all__ = ["SrSte"]


@dataclass(frozen=True)
class SrSte(ConstrainedMethod):
    """Weights that are dense behind their masks. The log has SAD, in how many places masks changed over an epoch.

    Attributes:
        strength: lambda; the authors take 2e-4, and 0 is the straight-through estimator alone.
    """

    name = "sr-ste"

    strength: float = 2e-4

    def check(self) -> None:
        super().check()
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise InputError(f"strength {self.strength} is not a number from 0 up")

    def bound(self, module: CapturedModule) -> ConstrainedHooks:
        return _Hooks(self.constraint(module), self.strength)


@dataclass(frozen=True, eq=False)
class _Hooks(ConstrainedHooks):
    """Between steps the parameters are the masked weights, so that these are what is tested and given in the end."""

    strength: float = 0.0

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        return super().figures(weights, state) | {"mask_changes": float(state["changed"])}

    def begin(self, weights: Weights) -> State:
        return self._masked(weights, {}, Moment(0, 1, 1))

    def gradients(self, weights: Weights, state: State) -> None:
        """Puts the dense weights back, with their gradient; the optimizer's weight decay is of these."""
        masks = by_name("mask", state)
        for name, dense in by_name("dense", state).items():
            weight = weights[name]
            weight.copy_(dense)
            if weight.grad is not None:
                weight.grad.addcmul_(dense, (~masks[name]).to(dense), value=self.strength)

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        return self._masked(weights, state, moment)

    def _masked(self, weights: Weights, state: State, moment: Moment) -> State:
        """Keeps the dense weights, and masks the parameters."""
        dense = {name: weights[name].clone() for name in self.constraint.names}
        masks = self.constraint.masks(weights)
        self.hold(weights, masks)
        return named("dense", dense) | named("mask", masks) | mask_changes(state, masks, moment)
