"""The one way in which a generator takes decisions, so that a seed and hypothesis can both take them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

__all__ = ["Choices", "SeededChoices", "chance", "pick", "sample"]

T = TypeVar("T")


class Choices(Protocol):
    """A source of decisions. Smaller numbers are simpler; a source that shrinks moves towards them."""

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        ...


class SeededChoices:
    """Decisions from a pseudo-random generator: graph `number` of a seed is always the same."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = random.Random(f"{seed}/{number}")

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


def pick(choices: Choices, options: Sequence[T]) -> T:
    """One of `options`; the first is the simplest."""
    return options[choices.integer(0, len(options) - 1)]


def chance(choices: Choices, percent: int) -> bool:
    """True in so many of a hundred cases; False is the simpler answer."""
    return choices.integer(0, 99) >= 100 - percent


def sample(choices: Choices, size: int, count: int) -> tuple[int, ...]:
    """`count` different numbers below `size`, ascending."""
    left = list(range(size))
    return tuple(sorted(left.pop(choices.integer(0, len(left) - 1)) for _ in range(count)))
