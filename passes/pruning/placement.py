"""Where methods are compared: at an equal degree p, an equal number of weights, or equally many multiply-accumulates.

A method is placed by a search over its own p, and pruned there: nothing is read between two measured points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ...frontend.base.errors import InputError

__all__ = ["PLACES", "TOLERANCE", "Placed", "check_place", "halvings"]

PLACES = ("p", "weights", "macs")
TOLERANCE = 0.005
"""Share of what is wanted by which a method may miss it before the search goes on."""

Made = TypeVar("Made")


@dataclass(frozen=True)
class Placed:
    """Where the search for an equal size ended.

    Attributes:
        at: of `PLACES`.
        wanted: weights, or multiply-accumulates.
        reached: those of the network that was made, the nearest of all that were tried. Layers are whole channels wide, and
            narrow ones rounded to a multiple are far apart: it may miss by more than `TOLERANCE`, and says so.
        sparsity: the p at which the method makes it.
    """

    at: str
    wanted: int
    reached: int
    sparsity: float

    @property
    def miss(self) -> float:
        """Share of what was wanted that is there too much; negative where it is too little."""
        return self.reached / max(self.wanted, 1) - 1


def check_place(at: str) -> None:
    """Raises InputError unless it is of `PLACES`."""
    if at not in PLACES:
        raise InputError(f"networks cannot be compared at equal '{at}'; choose one of {', '.join(PLACES)}")


def halvings(
    make: Callable[[float], Made], size: Callable[[Made], int], wanted: int, *,
    first: float = 0.5, tolerance: float = 0.0, most: int = 12,
) -> Iterator[tuple[float, Made, int]]:  # fmt: skip
    """What is made at shares of 0 to below 1, in the order of a bisection for a size; shares, what was made, and its sizes.

    Args:
        make: takes a share that is removed; the more, the smaller is what it makes.
        size: of what was made.
        wanted: size.
        first: share to begin with.
        tolerance: a size that misses by no more than this share of what is wanted ends the search; 0: none does.
        most: shares that are tried.
    """
    low, high, middle = 0.0, 1.0, first
    for _ in range(most):
        made = make(middle)
        found = size(made)
        yield middle, made, found
        if tolerance and abs(found - wanted) <= tolerance * wanted:
            return
        low, high = (low, middle) if found < wanted else (middle, high)
        middle = (low + high) / 2
