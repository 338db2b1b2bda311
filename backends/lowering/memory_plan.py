"""Where values lie in one block of memory, so that those that are alive at the same time do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["Interval", "largest_live_set", "plan_memory"]


@dataclass(frozen=True)
class Interval:
    """`size` bytes that are in use from step `first` to step `last`, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: Interval) -> bool:
        """Whether both are in use at some step."""
        return self.first <= other.last and other.first <= self.last


def plan_memory(intervals: Sequence[Interval], alignment: int) -> tuple[tuple[int, ...], int]:
    """The offset of each interval, a multiple of `alignment`, and the bytes of the whole block.

    Largest first, each into the smallest gap that takes it (greedy by size: Pisarchyk and Lee, Efficient Memory
    Management for Deep Neural Net Inference, 2020).
    """
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in sorted(range(len(intervals)), key=lambda i: (-intervals[i].size, i)):
        interval = intervals[index]
        taken = sorted((offsets[i], offsets[i] + intervals[i].size) for i in placed if intervals[i].meets(interval))
        offsets[index] = _smallest_gap(taken, interval.size, alignment)
        placed.append(index)
    ends = [offset + interval.size for offset, interval in zip(offsets, intervals, strict=True)]
    return tuple(offsets), max(ends, default=0)


def largest_live_set(intervals: Sequence[Interval]) -> int:
    """Bytes in use at the busiest step: what no plan can do with less than."""
    changes: dict[int, int] = {}
    for interval in intervals:
        changes[interval.first] = changes.get(interval.first, 0) + interval.size
        changes[interval.last + 1] = changes.get(interval.last + 1, 0) - interval.size
    return max(accumulate(changes[step] for step in sorted(changes)), default=0)


def _smallest_gap(taken: Sequence[tuple[int, int]], size: int, alignment: int) -> int:
    """The start of the smallest gap of `size` bytes between ranges sorted by their starts, or where they all end."""
    start, best, least = 0, None, 0
    for low, high in taken:
        room = low - start
        if room >= size and (best is None or room < least):
            best, least = start, room
        start = max(start, -(-high // alignment) * alignment)
    return start if best is None else best
