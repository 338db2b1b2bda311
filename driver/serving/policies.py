"""Which variant would be best now, as pure functions of an observation.

Every policy has two thresholds: what it takes to leave for a smaller variant is more than what it takes to stay, and a larger
one is wished for only if it is expected to stay on the good side of the other threshold. How often wishes are granted is the
governor's business (`governor.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...frontend.base.errors import InputError
from .observation import Observation, Power

__all__ = [
    "ByHand",
    "Combined",
    "LatencyObjective",
    "MemoryAvailable",
    "Policy",
    "PowerHint",
    "QueueLength",
    "Wish",
]


@dataclass(frozen=True)
class Wish:
    """The variant that a policy would have answer, and why.

    Attributes:
        index: of the observation's choices; None if the policy has nothing to say.
    """

    index: int | None
    reason: str


class Policy(Protocol):
    """What every policy is: from an observation to a wish, and nothing else."""

    def wish(self, seen: Observation) -> Wish: ...


@dataclass(frozen=True)
class ByHand:
    """Never wishes for another variant."""

    def wish(self, seen: Observation) -> Wish:
        return Wish(None, "variants are chosen by hand")


@dataclass(frozen=True)
class LatencyObjective:
    """The largest variant whose 95th percentile stays below an objective.

    Attributes:
        objective_ms: of a request's time in the queue and its computation.
        low: share of the objective that another variant must be expected to stay below.
        requests: how many there must be before the percentile means something.
    """

    objective_ms: float
    low: float = 0.7
    requests: int = 20

    def __post_init__(self) -> None:
        _check(self.objective_ms > 0, f"the objective {self.objective_ms} ms is not above 0")
        _check(0 < self.low < 1, f"the lower threshold {self.low} is not between 0 and 1")

    def wish(self, seen: Observation) -> Wish:
        found = seen.p95_ms
        if found is None or seen.requests < self.requests:
            return Wish(seen.active, f"{seen.requests} requests are too few to judge by")
        said = f"p95 {found:.3g} ms, objective {self.objective_ms:g} ms"
        fitting = next((index for index in range(len(seen.choices)) if self._fits(seen, found, index)), None)
        if found > self.objective_ms:
            smallest = len(seen.choices) - 1
            return Wish(max(seen.active + (seen.active < smallest), smallest if fitting is None else fitting), said)
        return Wish(seen.active if fitting is None else min(fitting, seen.active), said)

    def _fits(self, seen: Observation, found: float, index: int) -> bool:
        return found * _ratio(seen, index) <= self.low * self.objective_ms


@dataclass(frozen=True)
class QueueLength:
    """A smaller variant while many requests wait, a larger one when it would have the time.

    Attributes:
        high: mean length of the queue above which the next smaller variant is wished for.
        low: mean length below which a larger one may be.
        busy: share of the time that the larger one may be expected to compute.
    """

    high: float = 8.0
    low: float = 2.0
    busy: float = 0.7

    def __post_init__(self) -> None:
        _check(0 < self.low < self.high, f"of the queue's lengths {self.low} and {self.high} the first must be less")
        _check(0 < self.busy <= 1, f"{self.busy} is no share of the time")

    def wish(self, seen: Observation) -> Wish:
        said = f"queue {seen.queue:.1f}, computing {seen.busy:.0%} of the time"
        if seen.queue > self.high:
            return Wish(_smaller(seen), said)
        larger = _larger(seen)
        fits = seen.requests > 0 and seen.busy * _ratio(seen, larger) <= self.busy
        return Wish(larger if seen.queue < self.low and fits else seen.active, said)


@dataclass(frozen=True)
class MemoryAvailable:
    """The largest variant that leaves a reserve of memory.

    A variant is loaded beside the one that answers, so the reserve must be enough for the smallest.

    Attributes:
        reserve: bytes that must be left; with less, a smaller variant is wished for.
        margin: times the reserve that must be left for a larger one.
    """

    reserve: int
    margin: float = 1.5

    def __post_init__(self) -> None:
        _check(self.reserve > 0, f"a reserve of {self.reserve} bytes is none")
        _check(self.margin > 1, f"the margin {self.margin} is not above 1")

    def wish(self, seen: Observation) -> Wish:
        if seen.memory is None:
            return Wish(None, "this machine does not say how much memory is left")
        said = f"{seen.memory >> 20} MiB left, reserve {self.reserve >> 20} MiB"
        if seen.memory < self.reserve:
            return Wish(_smaller(seen), said)
        larger = _larger(seen)
        left = seen.memory - seen.choices[larger].memory
        return Wish(larger if left >= self.margin * self.reserve else seen.active, said)


@dataclass(frozen=True)
class PowerHint:
    """A smaller variant on a battery that runs out or on a hot machine, a larger one when both are over.

    Attributes:
        low, high: shares of the battery's charge; below the first a smaller variant, above the second a larger one.
        cool, hot: degrees Celsius; above the second a smaller variant, below the first a larger one.
    """

    low: float = 0.2
    high: float = 0.4
    cool: float = 65.0
    hot: float = 80.0

    def __post_init__(self) -> None:
        _check(0 <= self.low < self.high <= 1, f"of the charges {self.low} and {self.high} the first must be less")
        _check(self.cool < self.hot, f"of {self.cool} and {self.hot} degrees the first must be less")

    def wish(self, seen: Observation) -> Wish:
        power = seen.power
        if power.charge is None and power.celsius is None:
            return Wish(None, "this machine has no battery and no thermal sensor that can be read")
        draining = power.charge is not None and not power.plugged
        charge = power.charge if power.charge is not None and draining else 1.0
        celsius = power.celsius if power.celsius is not None else self.cool - 1
        said = _power_words(power)
        if charge < self.low or celsius > self.hot:
            return Wish(_smaller(seen), said)
        return Wish(_larger(seen) if charge > self.high and celsius < self.cool else seen.active, said)


@dataclass(frozen=True)
class Combined:
    """The smallest variant that any of several policies wishes for. Who has nothing to say is not asked."""

    policies: Sequence[Policy]

    def __post_init__(self) -> None:
        _check(len(self.policies) > 0, "there is no policy to combine")

    def wish(self, seen: Observation) -> Wish:
        wishes = [policy.wish(seen) for policy in self.policies]
        index = max((wish.index for wish in wishes if wish.index is not None), default=None)
        return Wish(index, "; ".join(wish.reason for wish in wishes if wish.index == index))


def _power_words(power: Power) -> str:
    """``battery 30%, 71 degrees``."""
    words = []
    if power.charge is not None:
        words.append(f"battery {power.charge:.0%}{' and plugged in' if power.plugged else ''}")
    if power.celsius is not None:
        words.append(f"{power.celsius:.0f} degrees")
    return ", ".join(words)


def _smaller(seen: Observation) -> int:
    return min(seen.active + 1, len(seen.choices) - 1)


def _larger(seen: Observation) -> int:
    return max(seen.active - 1, 0)


def _ratio(seen: Observation, index: int) -> float:
    """What a call of variant `index` costs beside one of the active variant."""
    active = seen.choices[seen.active].cost
    return seen.choices[index].cost / active if active else 1.0


def _check(good: bool, message: str) -> None:
    if not good:
        raise InputError(f"{message}; choose other thresholds")
