"""The families of kernels that compete for a layer."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Family, LayerSpec, Task
from .direct import Direct
from .tiles import Machine
from .winograd_family import Winograd

__all__ = ["FAMILIES", "candidates"]

FAMILIES: tuple[Family, ...] = (Direct(), Winograd(2), Winograd(4))
"""The first one's first candidate is the default. Of candidates that cost the same the earlier is taken."""


def candidates(task: Task, machine: Machine, families: Sequence[Family] = FAMILIES) -> tuple[LayerSpec, ...]:
    """All of `families`, in their order."""
    return tuple(spec for family in families for spec in family.candidates(task, machine))
