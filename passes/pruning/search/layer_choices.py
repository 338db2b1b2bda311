"""One of several choices for every layer, at what they take and what they cost, within a time: by a knapsack, then by trials.

What choices of several layers cost together is not the sum of what each costs alone, but near it. So a search begins where the
sum is the least, which integer programming finds, and from there goes by what a trial of all choices together is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....frontend.base.errors import InputError
from ..knapsack import Table, solve
from .counts import Counts
from .distribution import Floats
from .rounds import Found, Quality, evolve
from .settings import SearchSettings

__all__ = ["LayerChoice", "best_sum", "drawn", "search_choices", "time_of", "undominated"]

_TRIES = 4
"""Budgets that are tried, since the solver keeps to one only within its tolerance."""
_DOUBLINGS = 200
_SPREAD = 6.0
"""Of the first distribution, in mean differences between the best and the second best choice of a layer."""


@dataclass(frozen=True)
class LayerChoice:
    """What a layer may become.

    Attributes:
        time: that it takes then.
        error: that it makes alone, in any unit that adds up; 0 for a layer that stays as it is.
    """

    time: float
    error: float


Layers = Sequence[Sequence[LayerChoice]]
"""The choices of every layer, one at least."""


def undominated(choices: Sequence[LayerChoice]) -> tuple[int, ...]:
    """The places of the choices that are faster than all of no greater error, from the slowest to the fastest; of equal ones
    the first.
    """
    found: list[int] = []
    for place in sorted(range(len(choices)), key=lambda place: (choices[place].error, choices[place].time, place)):
        if not found or choices[place].time < choices[found[-1]].time:
            found.append(place)
    return tuple(found)


def time_of(layers: Layers, chosen: Counts) -> float:
    """What all layers take."""
    return math.fsum(choices[place].time for choices, place in zip(layers, chosen, strict=True))


def best_sum(values: Sequence[Sequence[float]], layers: Layers, budget: float) -> Counts | None:
    """The choices whose values add up to the most, of those that take no more than the budget; None if none do."""
    free = tuple(int(np.argmax(some)) for some in values)
    if time_of(layers, free) <= budget:
        return free
    fastest = tuple(min(range(len(some)), key=lambda place: some[place].time) for some in layers)
    if time_of(layers, fastest) > budget:
        return None
    tables = [Table((place,), np.array([choice.time for choice in some])) for place, some in enumerate(layers)]
    tight = budget
    for _ in range(_TRIES):
        found = solve(values, tables, tight)
        if found is None:
            break
        if (over := time_of(layers, found) - budget) <= 0:
            return found
        tight -= 2 * over
    return fastest


def drawn(distribution: Floats, layers: Layers, budget: float, generator: np.random.Generator) -> Counts:
    """Choices within the budget, about as if those of every layer were drawn by its row until they are; some choices are.

    Noise of Gumbel's distribution is added to the logarithms of probabilities: the largest sum is then a draw (Papandreou and
    Yuille, 2011, "Perturb-and-MAP random fields"). The largest one within the budget is taken, about: of the choices at the
    price of time that keeps it, and then whichever are likelier and fit into what is left.
    """
    errors, times = _padded(layers)
    likely = np.log(np.where(distribution > 0, distribution, 1.0)) + generator.gumbel(size=distribution.shape)
    against = np.where(np.isfinite(errors), -likely, np.inf)
    # A sum that is rounded otherwise is not to be above the budget.
    found = (against + _price(against, times, budget * (1 - 1e-12)) * times).argmin(1)
    every = np.arange(len(layers))
    while True:
        left = budget - time_of(layers, tuple(found.tolist()))
        gain = against[every, found][:, None] - against
        gain[times - times[every, found][:, None] > left] = 0.0
        row, place = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[row, place] <= 0:
            return tuple(found.tolist())
        found[row] = place


def search_choices(
    layers: Layers, budget: float, settings: SearchSettings, quality: Quality, generator: np.random.Generator
) -> Found:
    """Looks for the choices that are worth most together; each one that is tried takes no more than the budget.

    Args:
        layers: their choices.
        budget: of the time of all of them.
        settings: of the search.
        quality: of choices, each as the places of what the layers take. The first ones that it is asked for are those whose
            errors add up to the least; the search ends with these or better ones.
        generator: of all that is random.

    Raises:
        InputError: no choices are within the budget.
    """
    errors = [[-choice.error for choice in some] for some in layers]
    first = best_sum(errors, layers, budget)
    if first is None:
        raise InputError("no choices of structures are within the budget; ask for more time")
    begin = _around(layers, budget, settings.least)
    return evolve(
        lambda sample: drawn(sample, layers, budget, generator), begin, settings, quality, generator, first=first
    )


def _around(layers: Layers, budget: float, least: float) -> Floats:
    """A distribution whose likeliest choices are about those of the least summed error within the budget.

    With L the price of time at which the choices of the least error + L time are just within the budget, the probability of a
    choice falls exponentially with what it costs more than its layer's best one. How fast: so that second best ones are, on
    average, e times less likely than the best.
    """
    errors, times = _padded(layers)
    cost = errors + _price(errors, times, budget) * times
    more = cost - cost.min(1, keepdims=True)
    seconds = np.sort(more, 1)[:, 1:2].reshape(-1)
    seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
    scale = float(seconds.mean()) if len(seconds) else 1.0
    found = np.where(np.isfinite(errors), np.maximum(np.exp(-more / (_SPREAD * scale)), least), 0.0)
    normal: Floats = found / found.sum(1, keepdims=True)
    return normal


def _padded(layers: Layers) -> tuple[Floats, Floats]:
    """Errors and times as matrices; rows of fewer choices end in infinite errors."""
    many = max(map(len, layers))
    errors, times = np.full((len(layers), many), np.inf), np.zeros((len(layers), many))
    for row, some in enumerate(layers):
        errors[row, : len(some)] = [choice.error for choice in some]
        times[row, : len(some)] = [choice.time for choice in some]
    return errors, times


def _price(errors: Floats, times: Floats, budget: float) -> float:
    """The least price of time, about, at which every layer's cheapest choice makes all of them fit into the budget."""

    def fits(price: float) -> bool:
        return float(np.take_along_axis(times, (errors + price * times).argmin(1)[:, None], 1).sum()) <= budget

    if fits(0.0):
        return 0.0
    positive = errors[np.isfinite(errors) & (errors > 0)]
    low, high = 0.0, float(positive.mean() if len(positive) else 1.0) / max(float(times.mean()), 1e-300)
    for _ in range(_DOUBLINGS):
        if fits(high):
            break
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
