"""Intervals that entries of a value lie in, and whether some are infinite or NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["ANYTHING", "FINITE", "Range", "hull", "inverse", "negative", "product", "squared", "total"]

_INF = math.inf


@dataclass(frozen=True)
class Range:
    """What is known of every entry of a value.

    Attributes:
        low: no finite entry is below.
        high: no finite entry is above.
        up: an entry may be infinite.
        down: an entry may be minus infinity.
        nan: an entry may be no number.
    """

    low: float = -_INF
    high: float = _INF
    up: bool = False
    down: bool = False
    nan: bool = False

    @property
    def finite(self) -> bool:
        """Every entry is."""
        return not (self.up or self.down or self.nan)

    @property
    def nonzero(self) -> bool:
        """No entry is zero, or no number."""
        return (self.low > 0 or self.high < 0) and not self.nan

    def joined(self, other: Range) -> Range:
        """Entries of both."""
        return Range(
            min(self.low, other.low),
            max(self.high, other.high),
            self.up or other.up,
            self.down or other.down,
            self.nan or other.nan,
        )

    def bounded(self, low: float, high: float) -> Range:
        """Of a function that maps all numbers, infinite ones too, into these bounds."""
        return Range(low, high, nan=self.nan)


FINITE = Range()
ANYTHING = Range(up=True, down=True, nan=True)


def hull(ranges: list[Range]) -> Range:
    """Entries of any of them."""
    result = ranges[0] if ranges else FINITE
    for other in ranges[1:]:
        result = result.joined(other)
    return result


def product(a: Range, b: Range) -> Range:
    """Of a product, entry by entry."""
    if not (a.finite and b.finite):
        for one, other in ((a, b), (b, a)):
            if one.finite and one.low > 0:
                return Range(*_corners(one, other), other.up, other.down, other.nan)
        return ANYTHING
    return Range(*_corners(a, b))


def _corners(a: Range, b: Range) -> tuple[float, float]:
    ends = [0.0 if 0.0 in (x, y) else x * y for x in (a.low, a.high) for y in (b.low, b.high)]
    return min(ends), max(ends)


def total(a: Range, b: Range) -> Range:
    """Of a sum."""
    nan = a.nan or b.nan or (a.up and b.down) or (a.down and b.up)
    return Range(a.low + b.low, a.high + b.high, a.up or b.up, a.down or b.down, nan)


def negative(a: Range) -> Range:
    """Of what is subtracted."""
    return Range(-a.high, -a.low, a.down, a.up, a.nan)


def inverse(a: Range) -> Range:
    """One over it."""
    if not a.nonzero:
        return ANYTHING
    ends = [0.0 if math.isinf(bound) else 1 / bound for bound in (a.low, a.high)]
    ends += [0.0] if a.up or a.down else []
    return Range(min(ends), max(ends))


def squared(a: Range) -> Range:
    """Of a square."""
    ends = sorted((abs(a.low), abs(a.high)))
    least = 0.0 if a.low <= 0 <= a.high else ends[0]
    return Range(least * least, ends[1] * ends[1], a.up or a.down, False, a.nan)
