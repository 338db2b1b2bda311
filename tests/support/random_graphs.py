"""The generator of random graphs with hypothesis taking its decisions, so that a failure shrinks."""

from __future__ import annotations

from collections.abc import Callable

from fuzzing.program import Program
from fuzzing.running import random_program
from hypothesis import strategies as st

__all__ = ["programs"]


class _Drawn:
    """Decisions drawn by hypothesis."""

    def __init__(self, draw: Callable[[st.SearchStrategy[int]], int]) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))


@st.composite
def programs(
    draw: Callable[[st.SearchStrategy[int]], int], least: int = 1, most: int = 8, only: tuple[str, ...] = ()
) -> Program:
    """Programs of `least` to `most` steps with masks; each has one of the operators `only`, if any are given."""
    return random_program(_Drawn(draw), (least, most), only)
