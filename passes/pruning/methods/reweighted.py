"""Reweighted group lasso: groups of weights are drawn to zero, small ones ever more, then pruned and retrained with masks.

BLK-REW (Ma et al., 2020, arXiv 2001.08357) after the reweighted l1 of Candes, Wakin and Boyd (2008, doi
10.1007/s00041-008-9045-x). The loss f is trained with

    f(W) + lambda sum_g a_g ||W_g||^2,    a_g = 1 / (||W_g||^2 + epsilon),

as the paper writes it, or with plain norms in both places, as its authors' code has them; a is found anew at a few milestones.
Descent with a learning rate r contracts squared norms where r lambda < epsilon; plain ones do not come nearer to zero than they
swing in a step, r lambda / epsilon. Groups are what a structure makes zero together: columns and rows of blocks, kernels, N:M's
single weights. Of channels they are DepGraph's (Fang et al., 2023, arXiv 2301.12900), all that makes or reads a channel; its
own weighting,

    a_g = 2^(4 (max - ||W_g||) / (max - min)),   over the groups of a layer,

is a choice. How large a share each layer loses comes out of the one lambda: with the scope ``global`` all groups are ranked
together at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from .base import Moment, State, Weights
from .constrained import ConstrainedHooks, ConstrainedMethod, by_name, relative_distance

__all__ = ["WEIGHTINGS", "Reweighted"]

_TINY = 1e-20
"""Squared norms below have no gradient: that of the norm is not defined at 0."""
_RANGE = 4.0


def _inverse(norms: Tensor, epsilon: float) -> Tensor:
    return 1 / (norms + epsilon)


def _in_range(norms: Tensor, epsilon: float) -> Tensor:
    low, high = norms.min(), norms.max()
    exponents: Tensor = _RANGE * (high - norms) / (high - low).clamp_min(epsilon)
    return torch.exp2(exponents)


WEIGHTINGS: Mapping[str, Callable[[Tensor, float], Tensor]] = MappingProxyType(
    {"inverse": _inverse, "range": _in_range}
)
"""By name: the weights of a layer's groups, from their norms and epsilon."""


@dataclass(frozen=True)
class Reweighted(ConstrainedMethod):
    """Draws groups to zero, then prunes the smallest. The log has ``residual``, ||W - nearest|| / ||W||, what that would take.

    Attributes:
        strength: lambda.
        squared: norms are squared, in the penalty and in its weights.
        weighting: of `WEIGHTINGS`.
        epsilon: of the weights.
        refreshes: how often weights are found anew, at equal distances before pruning.
        retrain: share of the training that is done after pruning, with its masks.
    """

    name = "reweighted"

    scope: str = "global"
    strength: float = 1e-4
    squared: bool = True
    weighting: str = "inverse"
    epsilon: float = 1e-3
    refreshes: int = 4
    retrain: float = 0.4

    def check(self) -> None:
        super().check()
        for name in ("strength", "epsilon"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise InputError(f"{name} {value} is not a number above 0")
        if self.weighting not in WEIGHTINGS:
            raise InputError(f"there is no weighting '{self.weighting}'; choose one of {', '.join(WEIGHTINGS)}")
        if not isinstance(self.squared, bool):
            raise InputError(f"squared is {self.squared!r}; choose true or false")
        if self.refreshes < 0:
            raise InputError(f"{self.refreshes} refreshes are not possible; give 0 or more")
        if not 0 <= self.retrain < 1:
            raise InputError(
                f"retrain {self.retrain} is no share of a training that leaves time before it; 0 to below 1"
            )

    def bound(self, module: CapturedModule) -> ConstrainedHooks:
        return ReweightedHooks(self.constraint(module), self)

    def refreshed(self, progress: float) -> int:
        """How often weights have been found anew after so much of the training."""
        return int(progress / (1 - self.retrain) * (self.refreshes + 1) + 1e-9)


@dataclass(frozen=True, eq=False)
class ReweightedHooks(ConstrainedHooks):
    """The state has the weights of all groups, and then the masks."""

    method: Reweighted = field(default_factory=Reweighted)

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        nearest = {} if by_name("mask", state) else self.constraint.projected(weights)
        return super().figures(weights, state) | {"residual": relative_distance(weights, nearest)}

    def begin(self, weights: Weights) -> State:
        return self._weighted(weights)

    def penalty(self, weights: Weights, state: State) -> Tensor | None:
        if by_name("mask", state):
            return None
        terms = [
            (state[f"weight/{name}"] * (squares if self.method.squared else squares.clamp_min(_TINY).sqrt())).sum()
            for name, squares in self._groups(weights).items()
        ]
        return self.method.strength * torch.stack(terms).sum()

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        if masks := by_name("mask", state):
            self.hold(weights, masks)
            return state
        if moment.progress >= 1 - self.method.retrain:
            return self.prune(weights)
        before = (moment.step - 1) / (moment.steps * moment.epochs)
        if self.method.refreshed(moment.progress) > self.method.refreshed(before):
            return self._weighted(weights)
        return state

    def _groups(self, weights: Weights) -> dict[str, Tensor]:
        """Squared norms, the several kinds of groups of a layer by numbers."""
        return {
            f"{place}/{name}": squares
            for name, kinds in self.constraint.groups(weights).items()
            for place, squares in enumerate(kinds)
        }

    def _weighted(self, weights: Weights) -> State:
        weigh, epsilon = WEIGHTINGS[self.method.weighting], self.method.epsilon
        return {
            f"weight/{name}": weigh(squares if self.method.squared else squares.sqrt(), epsilon)
            for name, squares in self._groups(weights).items()
        }
