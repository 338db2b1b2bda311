"""The learning rate of every step of a training. It depends on the step alone, so that a training goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import torch
from torch.optim import lr_scheduler

__all__ = ["SCHEDULES", "Course"]

_RISING = 0.3
"""Share of a training over which the rate of one cycle grows, unless said otherwise."""


@dataclass(frozen=True)
class Course:
    """What a learning rate depends on beside the step; epochs are what `presets.Preset` has them for."""

    rate: float
    epochs: int
    steps: int
    """In an epoch."""
    warmup: float = 0.0
    """Epochs."""
    milestones: tuple[float, ...] = ()
    """Epochs."""
    gamma: float = 0.1


def _in_steps(course: Course, step: int) -> float:
    """``rate * gamma ** n`` after n milestones."""
    epoch = step / course.steps
    rate = course.rate * course.gamma ** sum(epoch >= milestone for milestone in course.milestones)
    return rate * min(1.0, (step + 1) / (course.warmup * course.steps)) if course.warmup else rate


def _cosine(course: Course, step: int) -> float:
    """Half a cosine from the rate to 0 after warm-up (Loshchilov and Hutter, 2017, arXiv:1608.03983; one cycle)."""
    return _rates_of_cosine(course)[step]


def _one_cycle(course: Course, step: int) -> float:
    """From a 25th of the rate to it, and down to next to nothing (Smith and Topin, 2018, arXiv:1708.07120).

    It grows over the warm-up, or over 30 % of the training if there is none. Momentum stays as it is.
    """
    return _rates_of_one_cycle(course)[step]


@lru_cache(maxsize=4)
def _rates_of_cosine(course: Course) -> tuple[float, ...]:
    total = course.epochs * course.steps
    rising = min(round(course.warmup * course.steps), total - 1)
    optimizer = _stand_in(course.rate)
    falling = lr_scheduler.CosineAnnealingLR(optimizer, total - rising)
    if rising < 2:
        return _walked(optimizer, falling, total)
    linear = lr_scheduler.LinearLR(optimizer, 1 / rising, total_iters=rising - 1)
    return _walked(optimizer, lr_scheduler.SequentialLR(optimizer, [linear, falling], [rising]), total)


@lru_cache(maxsize=4)
def _rates_of_one_cycle(course: Course) -> tuple[float, ...]:
    total = course.epochs * course.steps
    if total < 2:
        return (course.rate,)
    rising = min(course.warmup / course.epochs, 1.0) or _RISING
    optimizer = _stand_in(course.rate)
    cycle = lr_scheduler.OneCycleLR(optimizer, course.rate, total_steps=total, pct_start=rising, cycle_momentum=False)
    return _walked(optimizer, cycle, total)


def _stand_in(rate: float) -> torch.optim.Optimizer:
    """Something whose learning rate PyTorch's schedulers can set."""
    return torch.optim.SGD([torch.zeros(())], rate)


def _walked(optimizer: torch.optim.Optimizer, scheduler: lr_scheduler.LRScheduler, total: int) -> tuple[float, ...]:
    """The rates of all steps."""
    rates = []
    for step in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if step + 1 < total:
            optimizer.step()
            scheduler.step()
    return tuple(rates)


SCHEDULES: Mapping[str, Callable[[Course, int], float]] = MappingProxyType(
    {"steps": _in_steps, "cosine": _cosine, "one-cycle": _one_cycle}
)
"""By name: the learning rate of a step, counted from 0 over the whole training."""
