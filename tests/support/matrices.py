"""Matrices of cases that are too large for `make test`: it takes a part of them, `make thorough` the whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["WHOLE", "part"]

WHOLE = os.environ.get("RECONVENE_WHOLE_MATRICES") == "1"
"""Whether every test takes all of its cases."""

T = TypeVar("T")


def part(cases: Sequence[T], of: int, first: int = 0) -> list[T]:
    """Every `of`-th of the cases from `first` on; all of them where `WHOLE` says so."""
    return list(cases) if WHOLE else list(cases[first::of])
