"""Gradual magnitude pruning: the share of zeros grows while the network is trained (Zhu and Gupta, 2017, arXiv 1710.01878)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from .base import Moment, State, Weights
from .constrained import ConstrainedHooks, ConstrainedMethod, by_name, mask_changes, named

__all__ = ["Gradual"]


@dataclass(frozen=True)
class Gradual(ConstrainedMethod):
    """After every few steps the smallest units go, of a share that grows as a cube,

        s(t) = s (1 - (1 - (t - start) / (until - start))^3),

    with t the share of the training that is done; then the masks stay, and the rest is retraining. What is gone is zero, and
    comes back only where the masks of a structure change. Of N:M structures, N falls from M; patterns of kernels are there from
    the first masks on, and only whole kernels go gradually.

    Attributes:
        start: share of the training before which nothing goes.
        until: share after which nothing more does.
        every: steps between masks; the authors take 100 to 1000.
    """

    name = "gradual"

    start: float = 0.0
    until: float = 0.75
    every: int = 50

    def check(self) -> None:
        super().check()
        if not 0 <= self.start < self.until <= 1:
            raise InputError(
                f"start {self.start} and until {self.until} are no part of a training; 0 <= start < until <= 1"
            )
        if self.every < 1:
            raise InputError(f"masks every {self.every} steps are none; give 1 or more")

    def bound(self, module: CapturedModule) -> ConstrainedHooks:
        return _Hooks(self.constraint(module), self)

    def grown(self, progress: float) -> float:
        """How much of the share of zeros there is after so much of the training: s(t) / s."""
        gone = min(1.0, max(0.0, (progress - self.start) / (self.until - self.start)))
        return 1 - (1 - gone) ** 3


@dataclass(frozen=True, eq=False)
class _Hooks(ConstrainedHooks):
    method: Gradual = field(default_factory=Gradual)

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        return super().figures(weights, state) | {"mask_changes": float(state["changed"])}

    def begin(self, weights: Weights) -> State:
        masks = {name: torch.ones_like(weights[name], dtype=torch.bool) for name in self.constraint.names}
        return named("mask", masks) | mask_changes({}, masks, Moment(0, 1, 1))

    def after_step(self, weights: Weights, state: State, moment: Moment) -> State:
        masks, ends = by_name("mask", state), self._ends(moment)
        grown = self.method.grown(moment.progress)
        if grown and (ends or (moment.step % self.method.every == 0 and moment.progress < self.method.until)):
            masks = self.constraint.masks(weights, grown)
        if grown == 1:
            self.hold(weights, masks)
        else:
            for name, mask in masks.items():
                weights[name].mul_(mask)
        return named("mask", masks) | mask_changes(state, masks, moment)

    def _ends(self, moment: Moment) -> bool:
        """Whether the last step was the first at which all is gone that shall."""
        before = (moment.step - 1) / (moment.steps * moment.epochs)
        return before < self.method.until <= moment.progress
