"""Deciding zeros inside layers by time: the share of zeros at which a network takes a given time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from .latency import OutOfReach, check_latency
from .structured import Structured

__all__ = ["LayerTiming", "NetworkTime", "TimedZeros", "Timing", "ZerosGoal", "ZerosTime", "structured_for_latency"]

_STEPS = 12
_NEAR = 0.01
"""Of the dense network's time: what is so little below the goal is not searched further."""
_LEAST_STEP = 0.005
"""Of the share of zeros."""
_MAX_SPARSITY = 0.999
_INSIDE = 0.1
"""How far from either end of what is left a guess lies at least, as a share of it: so that every guess narrows it."""
_NO_GAIN = "its kernel gains nothing from so few zeros"


@dataclass(frozen=True)
class NetworkTime:
    """What one pass of a network takes.

    Attributes:
        total: of all its kernels.
        layers: of convolutions and linear layers, all calls together, by the name of the weight.
        unit: of all figures: ``s`` where they were measured, else ``cycles``.
    """

    total: float
    layers: Mapping[str, float]
    unit: str = "cycles"


ZerosTime = Callable[[Mapping[str, Tensor]], NetworkTime]
"""Time of a network with zeros where masks say, by parameter name, boolean, True to keep; without masks as it is."""


@dataclass(frozen=True)
class ZerosGoal:
    """What is wanted: `share` of the time of the network as it is, above 0 and at most 1, as `time` tells it."""

    share: float
    time: ZerosTime

    def __post_init__(self) -> None:
        check_latency(self.share)


@dataclass(frozen=True)
class LayerTiming:
    """One layer before and after. `zeros` is the share of its weights that became zero; times are in the network's unit."""

    name: str
    zeros: float
    dense: float
    sparse: float


@dataclass(frozen=True)
class Timing:
    """How a goal was reached.

    Attributes:
        wanted: share of the dense time.
        reached: the share that came out, at most that.
        sparsity: share of zeros that it took, of the layers that have any.
        unit: of the times.
        dense: time of the network as it was.
        sparse: and with the zeros.
        layers: that could take a structure, in the order of the network.
    """

    wanted: float
    reached: float
    sparsity: float
    unit: str
    dense: float
    sparse: float
    layers: tuple[LayerTiming, ...]

    @property
    def told(self) -> str:
        """``measured`` by a clock, or ``modelled``."""
        return "measured" if self.unit == "s" else "modelled"


@dataclass(frozen=True, eq=False)
class TimedZeros:
    """Zeros that reach a goal, and how they do; `asked` is the share that they were made with."""

    found: Structured
    timing: Timing
    asked: float


@dataclass(frozen=True, eq=False)
class _Trial:
    sparsity: float
    found: Structured
    time: NetworkTime


def structured_for_latency(give: Callable[[float], Structured], goal: ZerosGoal) -> TimedZeros:
    """The least share of zeros at which a network takes the goal's share of its time.

    It is one share, for every layer or over the network as `give` has it, and not one by what each layer gains: a layer's time
    says nothing about what its weights are worth, and scores do. But layers whose kernels gain nothing from their zeros get
    their weights back, since those are for free. Shares that layers have of their own stay.

    Args:
        give: zeros of a share, as `structured_masks` makes them.
        goal: every share that is tried is timed; it counts what is reached, not what was estimated between two trials.

    Raises:
        OutOfReach: the goal cannot be reached, which says how near one can come.
        InputError: no time is known.
    """
    dense = goal.time({})
    if dense.total <= 0:
        raise InputError("no layer of this model has a known time, so a latency cannot be aimed at; give a sparsity")
    search = _Search(give, goal, dense)
    best = search.best()
    layers = tuple(
        LayerTiming(
            view.name,
            _zeros(best.found.masks.get(view.source or view.name)),
            dense.layers.get(view.name, 0.0),
            best.time.layers.get(view.name, 0.0),
        )
        for view in (choice.view for choice in best.found.choices)
    )
    reached = best.time.total / dense.total
    timing = Timing(goal.share, reached, _share(best.found.masks), dense.unit, dense.total, best.time.total, layers)
    return TimedZeros(best.found, timing, best.sparsity)


@dataclass(frozen=True, eq=False)
class _Search:
    give: Callable[[float], Structured]
    goal: ZerosGoal
    dense: NetworkTime

    @property
    def wanted(self) -> float:
        return self.goal.share * self.dense.total

    def best(self) -> _Trial:
        """The trial of the least share of zeros that is fast enough, without zeros that bring nothing."""
        slow, fast = self.tried(0.0), self.tried(_MAX_SPARSITY)
        if self.reaches(slow):
            return self.without_idle(slow)  # Some structures have zeros at any share.
        if not self.reaches(fast):
            least = fast.time.total / self.dense.total
            raise OutOfReach(
                f"latency {self.goal.share} cannot be reached by zeros of this structure: with {_MAX_SPARSITY:.1%} of them"
                f" it is {least:.3f}; give that or more, or let more layers take a structure"
            )
        return self.without_idle(self.narrowed(slow, fast))

    def narrowed(self, slow: _Trial, fast: _Trial) -> _Trial:
        """The last trial that is fast enough as shares from one that is not to one that is are halved, or by turns cut where
        the straight line between the two times would have it. Where kernels change over the line is wrong.
        """
        for number in range(_STEPS):
            room = fast.sparsity - slow.sparsity
            if self.wanted - fast.time.total <= _NEAR * self.dense.total or room <= _LEAST_STEP:
                break
            part = (slow.time.total - self.wanted) / (slow.time.total - fast.time.total) if number % 2 == 0 else 0.5
            trial = self.tried(slow.sparsity + room * min(max(part, _INSIDE), 1 - _INSIDE))
            slow, fast = (slow, trial) if self.reaches(trial) else (trial, fast)
        return fast

    def without_idle(self, trial: _Trial) -> _Trial:
        """The trial with layers dense that take as long as before, as far as the goal stays reached.

        All of them at once, or else one after another: where images lie in another order for kernels with zeros, a layer that
        gains nothing itself may have to keep its zeros for its neighbours.
        """
        said = {choice.view.name for choice in trial.found.choices if choice.own_share is not None}
        idle = tuple(
            name
            for name, mask in trial.found.masks.items()
            if name not in said
            and not bool(mask.all())
            and trial.time.layers.get(name, 0.0) >= self.dense.layers.get(name, 0.0)
        )
        if not idle:
            return trial
        together = self.without(trial, idle)
        if self.reaches(together):
            return together
        for name in idle if len(idle) > 1 else ():
            changed = self.without(trial, (name,))
            trial = changed if self.reaches(changed) else trial
        return trial

    def without(self, trial: _Trial, names: tuple[str, ...]) -> _Trial:
        found = trial.found.without(names, _NO_GAIN)
        return _Trial(trial.sparsity, found, self.goal.time(found.masks))

    def tried(self, sparsity: float) -> _Trial:
        with stage(f"timing the network with {sparsity:.1%} zeros"):
            found = self.give(sparsity)
            return _Trial(sparsity, found, self.goal.time(found.masks))

    def reaches(self, trial: _Trial) -> bool:
        return trial.time.total <= self.wanted


def _share(masks: Mapping[str, Tensor]) -> float:
    """Of zeros in the weights that have any."""
    some = [mask for mask in masks.values() if not bool(mask.all())]
    return 1 - sum(int(mask.sum()) for mask in some) / sum(mask.numel() for mask in some) if some else 0.0


def _zeros(mask: Tensor | None) -> float:
    return 0.0 if mask is None else 1 - float(mask.float().mean())
