"""The best allocations of a search, from which one is taken in the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .counts import Counts
from .distribution import Floats

__all__ = ["Entry", "Replay"]


@dataclass(frozen=True, eq=False)
class Entry:
    """A sample, what it allots, and what that is worth."""

    quality: float
    distribution: Floats
    counts: Counts


@dataclass(frozen=True, eq=False)
class Replay:
    """The best entries, the best first, each allocation once; of equal ones the first that was there.

    Attributes:
        size: entries that are kept.
        entries: those.
    """

    size: int
    entries: tuple[Entry, ...] = ()

    def joined(self, entries: Iterable[Entry]) -> Replay:
        """With more entries, as far as they are better."""
        known: dict[Counts, Entry] = {}
        for entry in (*self.entries, *entries):
            known.setdefault(entry.counts, entry)
        return Replay(self.size, tuple(sorted(known.values(), key=lambda entry: -entry.quality)[: self.size]))

    def drawn(self, chance: float, generator: np.random.Generator) -> tuple[Entry, bool]:
        """The best entry, or with a chance any of them; and whether it was drawn. There has to be one."""
        if generator.random() < chance:
            return self.entries[int(generator.integers(len(self.entries)))], True
        return self.entries[0], False
