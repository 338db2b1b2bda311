"""What may lose something: the parts of a network, as an allocation sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Part", "capacity", "total"]


@dataclass(frozen=True)
class Part:
    """Units that are alike for an allocation: channels of a group, or units of a structure in a layer.

    Attributes:
        name: of the group or weight.
        size: units that there are.
        most: of them may go; 0 for a part that stays as it is. Some unit always stays.
        price: what one unit takes of a budget: filters, or weights.

    Raises:
        ValueError: all units could go, or a unit is for free.
    """

    name: str
    size: int
    most: int
    price: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.most < max(self.size, 1) or self.price < 1:
            raise ValueError(f"{self} is no part of which some stays")


def total(parts: Sequence[Part]) -> int:
    """The price of all units, of which a budget is a share."""
    return sum(part.size * part.price for part in parts)


def capacity(parts: Sequence[Part]) -> int:
    """The price of all units that may go."""
    return sum(part.most * part.price for part in parts)
