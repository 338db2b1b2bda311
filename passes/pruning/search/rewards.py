"""What an allocation is worth: accuracy, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ....frontend.base.errors import InputError

__all__ = ["REWARDS", "Costs", "Reward", "find_reward"]


@dataclass(frozen=True)
class Costs:
    """What a network costs, or with what share of the dense network's costs; see `Reward`.

    Attributes:
        macs: multiply-accumulates.
        parameters: weights of layers.
        latency: time on the target, in any unit; 0 where it is not asked for.
    """

    macs: float
    parameters: float
    latency: float = 0.0

    def saved(self, dense: Costs) -> Costs:
        """The shares of the dense network's costs that are saved; 0 of what costs nothing there."""
        pairs = ((self.macs, dense.macs), (self.parameters, dense.parameters), (self.latency, dense.latency))
        return Costs(*(1 - own / whole if whole > 0 else 0.0 for own, whole in pairs))


@dataclass(frozen=True)
class Reward:
    """``accuracy + macs * saved MACs + parameters * saved parameters + latency * saved latency``.

    The first three terms are the authors', whose modes weight savings by 0 or 0.25; savings are shares of the dense
    network's. The last one is ours: the time on the target that the network is for, in place of multiply-accumulates, which
    on a vectorised kernel with tiles say little of it.

    Attributes:
        macs, parameters, latency: weights of what is saved, in units of accuracy (0..1).
    """

    macs: float = 0.0
    parameters: float = 0.0
    latency: float = 0.0

    def check(self) -> None:
        """Raises InputError for a weight that is no number from 0 up."""
        for name in ("macs", "parameters", "latency"):
            if not (math.isfinite(value := getattr(self, name)) and value >= 0):
                raise InputError(f"the reward's weight of {name} is {value}; give a number from 0 up")

    def __call__(self, accuracy: float, saved: Costs) -> float:
        """Of an accuracy (0..1, or another metric that grows) and of shares that are saved."""
        return accuracy + self.macs * saved.macs + self.parameters * saved.parameters + self.latency * saved.latency


_SAVING = 0.25
"""The authors' weight, by a talk about the paper."""

REWARDS: Mapping[str, Reward] = MappingProxyType(
    {
        "accuracy": Reward(),
        "macs": Reward(macs=_SAVING),
        "parameters": Reward(parameters=_SAVING),
        "latency": Reward(latency=_SAVING),
    }
)
"""By name; each is accuracy and what is named."""


def find_reward(name: str) -> Reward:
    """The reward called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in REWARDS:
        raise InputError(f"there is no reward '{name}'; choose one of {', '.join(REWARDS)}")
    return REWARDS[name]
