"""What an estimate needs to know of a target: its core, its caches, its clock and its memory."""

from __future__ import annotations

from dataclasses import dataclass

from ..machines.targets import Target
from .core_model import Core, find_core
from .counting import CacheLevel

__all__ = ["BoardModel", "board_of", "core_of", "levels_of"]


@dataclass(frozen=True)
class BoardModel:
    """What turns cycles and bytes into time.

    Attributes:
        clock_mhz: of the core; None where it is not known, and then there are no milliseconds.
        memory_mb_s: what one core reads from memory in a second, in 10^6 bytes. An assumption.
    """

    clock_mhz: int | None
    memory_mb_s: int


def board_of(target: Target) -> BoardModel:
    """The clock and the memory of `target`."""
    return BoardModel(target.clock_mhz, target.memory_mb_s)


def core_of(target: Target) -> Core:
    """The core that llvm-mca judges code for `target` by.

    Raises:
        InputError: LLVM has no model of it.
    """
    return find_core(target.architecture, target.mca_cpu, target.name)


def levels_of(target: Target) -> tuple[CacheLevel, ...]:
    """The first and the last data cache, as one core that runs alone sees them; none of a microcontroller, whose code and
    data lie in memories of the chip.
    """
    if target.bare:
        return ()
    last = target.last_cache_bytes or target.l2_bytes
    return CacheLevel(target.l1_bytes, target.l1_ways), CacheLevel(last, target.last_cache_ways)
