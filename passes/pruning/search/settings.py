"""The constants of a search, as the authors have them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ....frontend.base.errors import InputError
from ....frontend.base.option_values import of_kind

__all__ = ["SearchSettings"]


@dataclass(frozen=True)
class SearchSettings:
    """How a search goes.

    Unless said otherwise values are those of the final release of the authors' code, as another's copy of it has them; the
    paper itself could not be read.

    Attributes:
        rounds: of a search.
        samples: of a round.
        noise: standard deviation of what is added to a distribution, in the first round.
        last_noise: the same in the last round; in between it falls by equal factors. The code has one for all rounds; below
            `noise` a search ends finer than it began, which is ours.
        least: probability of a part that can lose something, before normalisation.
        replay: allocations that are kept.
        pull: how far a distribution goes towards the best sample of a round that is better than all before.
        limit: a probability changes by no more than the factors 1 - limit and 1 + limit at once. Slides say 0.2.
        explore: chance to take any of the kept allocations and not the best, at the first step.
        explore_share: of all steps, after which that chance is 0; it falls as half a cosine.
    """

    rounds: int = 10
    samples: int = 10
    noise: float = 0.04
    last_noise: float = 0.04
    least: float = 1e-5
    replay: int = 10
    pull: float = 0.1
    limit: float = 0.25
    explore: float = 0.4
    explore_share: float = 0.1

    def changed(self, given: Mapping[str, Any]) -> Self:
        """The same with other values, written as text or given as numbers. Raises InputError if one is none, or unusable."""
        kinds = {field.name: str(field.type) for field in dataclasses.fields(self)}
        for name in given:
            if name not in kinds:
                raise InputError(f"a search has no setting '{name}'; it has {', '.join(kinds)}")
        result = dataclasses.replace(self, **{name: of_kind(name, kinds[name], value) for name, value in given.items()})
        result.check()
        return result

    def check(self) -> None:
        """Raises InputError for values no search can be made with."""
        for name in ("rounds", "samples", "replay"):
            if (count := getattr(self, name)) < 1:
                raise InputError(f"{name} {count} is not 1 or more")
        for name in ("noise", "last_noise", "least"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise InputError(f"{name} {value} is not a number above 0")
        for name in ("pull", "limit", "explore", "explore_share"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise InputError(f"{name} {value} is not a share from 0 to 1")

    def noise_in(self, number: int) -> float:
        """The noise of a round, counted from 0."""
        return self.noise * (self.last_noise / self.noise) ** (number / max(1, self.rounds - 1))

    def exploring(self, step: int, steps: int) -> float:
        """The chance to take any of the kept allocations, at a step counted from 0 of so many."""
        over = self.explore_share * steps
        return self.explore * (1 + math.cos(math.pi * step / over)) / 2 if step < over else 0.0
