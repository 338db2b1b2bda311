"""ADMM: the alternating direction method of multipliers towards a structure of zeros, then pruning and masked retraining.

Boyd et al., 2011 (doi 10.1561/2200000016), section 9.1 for sets that are not convex; for pruning Zhang et al., 2018
(arXiv 1804.03294), PatDNN (arXiv 2001.00138, with two sets at once), GRIM (arXiv 2108.11033), and unification
(arXiv 2106.08301), where the projection gives the blocks that stay one absolute value. The loss f is trained with

    f(W) + rho / 2 sum_i ||W - Z_i + U_i||^2,

and every few epochs, for the set S_i that the structure has as its i-th (kernel patterns and connectivity are two),

    Z_i = nearest(S_i, W + U_i),    U_i = U_i + W - Z_i.

Where rho changes, U is scaled by the old over the new one, because it is the multiplier divided by rho (Boyd, section 3.4.1).
After that W becomes the nearest network of all sets at once, and is trained with its masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from ..constraints import Constraint
from .base import Moment, State, Weights
from .constrained import ConstrainedHooks, ConstrainedMethod, by_name, named, relative_distance

__all__ = ["Admm"]


@dataclass(frozen=True)
class Admm(ConstrainedMethod):
    """Draws weights to a structure while they learn. The log has ``residual``, ||W - Z|| / ||W|| over all sets, and rho.

    Attributes:
        rho: strengths one after another, each for an equal part of the time before pruning.
        every: epochs from one update of Z and U to the next.
        retrain: share of the training that is done after pruning, with its masks.
        splits: whether a structure that is two at once, such as patterns with connectivity, has a set for each.
    """

    name = "admm"

    rho: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    every: float = 1.0
    retrain: float = 0.4
    splits: bool = True

    def check(self) -> None:
        super().check()
        if not self.rho or not all(math.isfinite(rho) and rho > 0 for rho in self.rho):
            raise InputError(f"rho is {self.rho}; give numbers above 0, one or several")
        if not (math.isfinite(self.every) and self.every > 0):
            raise InputError(f"every {self.every} is no number of epochs above 0")
        if not 0 <= self.retrain < 1:
            raise InputError(
                f"retrain {self.retrain} is no share of a training that leaves time before it; 0 to below 1"
            )

    def bound(self, module: CapturedModule) -> ConstrainedHooks:
        constraint = self.constraint(module)
        return AdmmHooks(constraint, self, constraint.factors() if self.splits else (constraint,))

    def updates_by(self, step: int, steps: int) -> int:
        """How many updates there have been after so many steps, of so many an epoch."""
        return int(step / (self.every * steps) + 1e-9)

    def rho_at(self, progress: float) -> float:
        """The strength after so much of the training."""
        part = int(progress / (1 - self.retrain) * len(self.rho) + 1e-9)
        return self.rho[min(part, len(self.rho) - 1)]


@dataclass(frozen=True, eq=False)
class AdmmHooks(ConstrainedHooks):
    """The state has Z and U of every set, and then the masks."""

    method: Admm
    sets: tuple[Constraint, ...] = field(repr=False)

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        return super().figures(weights, state) | {
            "residual": relative_distance(weights, *(by_name(f"z{place}", state) for place in range(len(self.sets)))),
            "rho": float(state["rho"]) if "rho" in state else 0.0,
        }

    def begin(self, weights: Weights) -> State:
        zeros = {name: torch.zeros_like(weights[name]) for name in self.constraint.names}
        rho = torch.tensor(self.method.rho_at(0.0), dtype=torch.float64)
        state: State = {"rho": rho}
        for place, own in enumerate(self.sets):
            z = own.projected(weights)
            state |= named(f"z{place}", z) | named(f"u{place}", {name: zeros[name].clone() for name in z})
        return state

    def gradients(self, weights: Weights, state: State) -> None:
        """The gradient of the penalty, rho sum_i (W - Z_i + U_i), is added to the loss's."""
        if "rho" not in state:
            return
        rho = float(state["rho"])
        for place in range(len(self.sets)):
            duals = by_name(f"u{place}", state)
            for name, z in by_name(f"z{place}", state).items():
                distance = weights[name] - z + duals[name]
                gradient = weights[name].grad
                weights[name].grad = rho * distance if gradient is None else gradient.add_(distance, alpha=rho)

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        if masks := by_name("mask", state):
            self.hold(weights, masks)
            return state
        if moment.progress >= 1 - self.method.retrain:
            return self.prune(weights)
        if self.method.updates_by(moment.step, moment.steps) > self.method.updates_by(moment.step - 1, moment.steps):
            state = self._updated(weights, state)
        return self._with_rho(state, self.method.rho_at(moment.progress))

    def _updated(self, weights: Weights, state: State) -> State:
        """Z and U after a turn."""
        new: State = {"rho": state["rho"]}
        for place, own in enumerate(self.sets):
            duals = by_name(f"u{place}", state)
            moved = {name: weights[name] + dual for name, dual in duals.items()}
            z = own.projected(moved)
            new |= named(f"z{place}", z) | named(f"u{place}", {name: moved[name] - z[name] for name in z})
        return new

    def _with_rho(self, state: State, rho: float) -> State:
        old = float(state["rho"])
        if rho == old:
            return state
        scaled = {name: value * (old / rho) if name.startswith("u") else value for name, value in state.items()}
        return scaled | {"rho": torch.tensor(rho, dtype=torch.float64)}
