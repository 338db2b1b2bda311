"""From a distribution to whole units of every part, which use up a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .distribution import Floats
from .parts import Part

__all__ = ["Counts", "counts"]

Counts = tuple[int, ...]
"""Units that go, of each part."""


def counts(distribution: Floats, parts: Sequence[Part], budget: int) -> Counts:
    """Units of each part, together at the price of the budget, in proportion to the distribution as far as there are units.

    What a part has too few units for goes to the others in proportion, and what rounding leaves goes to the largest
    remainders. The authors change the number that is multiplied until rounded numbers add up instead.

    Args:
        distribution: over the parts; those with 0 lose nothing.
        parts: of the network.
        budget: price of what goes.

    Returns:
        Where every unit has the price 1 they add up to the budget exactly, or to all that may go if that is less. Where
        prices differ they are never above it, and no unit that may still go would fit into what is left.
    """
    most = np.array([part.most if share > 0 else 0 for part, share in zip(parts, distribution, strict=True)], np.int64)
    prices = np.array([part.price for part in parts], np.int64)
    wanted = _filled(distribution, most * prices, float(budget)) / prices
    found = np.minimum(np.floor(wanted + 1e-9).astype(np.int64), most)
    left = budget - int(found @ prices)
    while (fits := (found < most) & (prices <= left)).any():
        place = int(np.where(fits, wanted - found, -np.inf).argmax())
        found[place] += 1
        left -= int(prices[place])
    return tuple(found.tolist())


def _filled(distribution: Floats, limits: np.ndarray, budget: float) -> Floats:
    """Shares of the budget in proportion to the distribution, none above its limit."""
    full = limits == 0
    while True:
        left, rest = budget - limits[full].sum(), distribution[~full].sum()
        scale = max(left, 0.0) / rest if rest > 0 else 0.0
        over = ~full & (distribution * scale >= limits)
        if not over.any():
            return np.where(full, limits, distribution * scale)
        full |= over
