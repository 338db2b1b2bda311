"""The search of one step: rounds of samples around a distribution that moves towards the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .counts import Counts, counts
from .distribution import Floats, perturbed, restricted, updated
from .parts import Part
from .replay import Entry, Replay
from .settings import SearchSettings

__all__ = ["Found", "Quality", "evolve", "search"]

Quality = Callable[[Sequence[Counts]], Sequence[float]]
"""What each of several allocations is worth, the more the better. It is asked for each one once in a search."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a search came to.

    Attributes:
        chosen: the best allocation, or one that was drawn.
        explored: whether it was drawn.
        distribution: where the search ended, for the next one to begin with.
        replay: the best allocations.
        best: the best quality after every round, before them that of an allocation that was known.
        asked: allocations whose quality was asked for.
    """

    chosen: Entry
    explored: bool
    distribution: Floats
    replay: Replay
    best: tuple[float, ...]
    asked: int


def search(
    parts: Sequence[Part],
    budget: int,
    begin: Floats,
    settings: SearchSettings,
    quality: Quality,
    generator: np.random.Generator,
    *,
    explore: float = 0.0,
) -> Found:
    """Looks for what to take of each part, at the price of the budget.

    Args:
        parts: of which one can lose something, at least.
        budget: of one step.
        begin: distribution to begin with, over the parts.
        settings, quality, generator, explore: see `evolve`.

    Raises:
        ValueError: no part can lose anything.
    """
    distribution = restricted(begin, parts)
    if not distribution.any():
        raise ValueError("no part can lose anything")
    return evolve(
        lambda sample: counts(sample, parts, budget), distribution, settings, quality, generator, explore=explore
    )


def evolve(
    allot: Callable[[Floats], Counts],
    begin: Floats,
    settings: SearchSettings,
    quality: Quality,
    generator: np.random.Generator,
    *,
    explore: float = 0.0,
    first: Counts | None = None,
) -> Found:
    """Draws samples around a distribution, and moves it.

    A round's best sample draws the distribution to it if it is better than all of the rounds before. The authors call that
    the update of a policy; it is a step of an evolution strategy.

    Args:
        allot: what a sample comes to.
        begin: distribution to begin with.
        settings: of the search.
        quality: of allocations.
        generator: of all that is random. The same one with the same qualities finds the same.
        explore: chance to take any of the best allocations; see `SearchSettings.exploring`.
        first: an allocation that is known before, and is to be beaten.
    """
    distribution = begin
    replay, known, best = Replay(settings.replay), dict[Counts, float](), list[float]()
    if first is not None:
        known[first] = quality([first])[0]
        replay, best = replay.joined([Entry(known[first], begin, first)]), [known[first]]
    for number in range(settings.rounds):
        noise = settings.noise_in(number)
        samples = [perturbed(distribution, noise, settings.least, generator) for _ in range(settings.samples)]
        allotted = [allot(sample) for sample in samples]
        new = [one for one in dict.fromkeys(allotted) if one not in known]
        known.update(zip(new, quality(new) if new else (), strict=True))
        entries = [Entry(known[one], sample, one) for one, sample in zip(allotted, samples, strict=True)]
        replay = replay.joined(entries)
        top = max(entries, key=lambda entry: entry.quality)
        if top.quality > (best[-1] if best else -math.inf):
            distribution = updated(distribution, top.distribution, settings.pull, settings.limit)
        best.append(max([top.quality, *best[-1:]]))
    chosen, explored = replay.drawn(explore, generator)
    return Found(chosen, explored, distribution, replay, tuple(best), len(known))
