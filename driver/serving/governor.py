"""When a policy's wish is granted: never so often that variants flap.

Two rules, whatever the policy wishes and the observations say:

1. A variant answers for at least the dwell time before another one takes its place.
2. A variant that was left because it was too much is not taken again, nor any larger one, for a time that doubles whenever it
   turned out to be too much again soon after. So a steady load that the policy misjudges causes a number of switches that
   grows with the logarithm of the time.

The same ban meets a variant that could not be loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...frontend.base.errors import InputError
from .observation import Observation
from .policies import Wish

__all__ = ["Governor", "Stance"]

_SOON = 4
"""A variant failed soon if it answered for less than so many times the last ban."""


@dataclass(frozen=True)
class Ban:
    """A variant that was too much, or broken: until when it is not taken, and for how long that was."""

    until: float
    seconds: float


@dataclass(frozen=True)
class Stance:
    """What a governor remembers from one decision to the next.

    Attributes:
        since: when the active variant began to answer.
        bans: by index of the variant.
    """

    since: float = -math.inf
    bans: Mapping[int, Ban] = field(default_factory=dict)


@dataclass(frozen=True)
class Governor:
    """Grants wishes.

    Attributes:
        dwell: seconds that a variant answers at least.
        longest: seconds that a variant is banned at most.
    """

    dwell: float = 10.0
    longest: float = 3600.0

    def __post_init__(self) -> None:
        if not 0 < self.dwell <= self.longest:
            raise InputError(f"a dwell time of {self.dwell} s is not between 0 and {self.longest} s")

    def decided(self, stance: Stance, wish: Wish, seen: Observation) -> int:
        """The index of the variant that should answer now."""
        if wish.index in (None, seen.active) or seen.seconds < stance.since + self.dwell:
            return seen.active
        banned = {index for index, ban in stance.bans.items() if seen.seconds < ban.until}
        if wish.index > seen.active:
            smaller = range(wish.index, len(seen.choices))
            return next((index for index in smaller if index not in banned), seen.active)
        # The largest that is wished for; a ban holds for all that are larger.
        return min(max(wish.index, max(banned, default=-1) + 1), seen.active)

    def switched(self, stance: Stance, before: int, after: int, seconds: float) -> Stance:
        """The stance after variant `after` took the place of `before`, at `seconds`."""
        if after <= before:
            return replace(stance, since=seconds)
        last = stance.bans.get(before)
        again = last is not None and seconds - stance.since < _SOON * last.seconds
        length = min(2 * last.seconds, self.longest) if again and last is not None else 2 * self.dwell
        return Stance(seconds, {**stance.bans, before: Ban(seconds + length, length)})

    def failed(self, stance: Stance, index: int, seconds: float) -> Stance:
        """The stance after variant `index` could not be loaded: it is not asked for again for a while."""
        last = stance.bans.get(index)
        length = min(2 * last.seconds, self.longest) if last is not None else 2 * self.dwell
        return replace(stance, since=seconds, bans={**stance.bans, index: Ban(seconds + length, length)})
