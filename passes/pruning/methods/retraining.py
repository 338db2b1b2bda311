"""One-shot pruning by magnitude, and training with the masks that it gave: what every other method is compared with.

Han et al., 2015, "Learning both weights and connections", arXiv 1506.02626, for zeros of any structure.
"""

from __future__ import annotations

from dataclasses import dataclass

from ....frontend.graph_module import CapturedModule
from .base import Moment, State, Weights
from .constrained import ConstrainedHooks, ConstrainedMethod, by_name

__all__ = ["OneShotRetraining"]


@dataclass(frozen=True)
class OneShotRetraining(ConstrainedMethod):
    """The network is pruned before the first step, to the nearest of the structure, and trained so."""

    name = "one-shot"

    def bound(self, module: CapturedModule) -> ConstrainedHooks:
        return _Hooks(self.constraint(module))


@dataclass(frozen=True, eq=False)
class _Hooks(ConstrainedHooks):
    def begin(self, weights: Weights) -> State:
        return self.prune(weights)

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        self.hold(weights, by_name("mask", state))
        return state
