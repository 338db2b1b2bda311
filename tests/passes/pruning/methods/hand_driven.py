"""Hooks that are called by hand, in float64, on a loss that is a function of the weights alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reconvene.passes.pruning.constraints import Constraint, Values
from reconvene.passes.pruning.methods.base import Hooks, Moment, State

__all__ = ["Box", "driven"]

Weights = dict[str, nn.Parameter]


def driven(
    hooks: Hooks, weights: Weights, loss: Callable[[Mapping[str, Tensor]], Tensor], epochs: int, steps: int, rate: float
) -> State:
    """Gradient descent with the hooks, and the state at its end."""
    with torch.no_grad():
        state = hooks.begin(weights)
    optimizer = torch.optim.SGD(weights.values(), rate)
    for step in range(1, epochs * steps + 1):
        optimizer.zero_grad()
        total, penalty = loss(weights), hooks.penalty(weights, state)
        (total if penalty is None else total + penalty).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            hooks.gradients(weights, state)
            optimizer.step()
            state = hooks.after_step(weights, state, Moment(step, steps, epochs))
    return state


@dataclass(frozen=True, eq=False)
class Box(Constraint):
    """Weights from 0 up: a convex set."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("w",)

    def masks(self, values: Values, done: float = 1.0) -> dict[str, Tensor]:
        return {"w": values["w"] > 0}

    def held(self, values: Values, masks: Values) -> dict[str, Tensor]:
        return {"w": values["w"].clamp_min(0) * masks["w"]}

    def groups(self, values: Values) -> dict[str, tuple[Tensor, ...]]:
        return {"w": (values["w"].square(),)}

    def support(self, values: Values) -> dict[str, Tensor]:
        return self.masks(values)

    @property
    def left(self) -> tuple[str, ...]:
        return ()

    def sparsity(self, values: Values) -> float:
        return float((values["w"] == 0).double().mean())
