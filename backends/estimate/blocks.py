"""From counts of instructions to basic blocks: straight code that always runs as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .counting import Place, Ran

__all__ = ["Block", "blocks_of", "steady"]


@dataclass(frozen=True)
class Block:
    """Instructions that ran one after the other, `count` times."""

    file: str
    offset: int
    count: int
    code: tuple[bytes, ...]

    @property
    def instructions(self) -> int:
        """How many ran."""
        return self.count * len(self.code)


def steady(more: Ran, fewer: Ran) -> Ran:
    """What `more` ran beyond `fewer`: of two runs of a program that differ in one pass, that pass alone."""
    counts = {place: count - fewer.counts.get(place, 0) for place, count in more.counts.items()}
    return Ran({place: count for place, count in counts.items() if count > 0}, more.code)


def blocks_of(ran: Ran) -> list[Block]:
    """`ran` as blocks, in the order of files and offsets: a block ends where the next instruction ran more or less
    often, or is elsewhere.

    QEMU's own blocks will not do: one that begins before a loop holds the loop's first turn, and long code, or code
    across two pages of memory, is several of them.
    """
    found: list[Block] = []
    code: list[bytes] = []
    start: Place = ("", 0)
    following: Place | None = None
    count = 0
    for place in sorted(ran.counts):
        if place != following or ran.counts[place] != count:
            _add(found, start, count, code)
            start, count, code = place, ran.counts[place], []
        code.append(ran.code[place])
        following = (place[0], place[1] + len(code[-1]))
    _add(found, start, count, code)
    return found


def _add(found: list[Block], start: Place, count: int, code: Sequence[bytes]) -> None:
    if code:
        found.append(Block(start[0], start[1], count, tuple(code)))
