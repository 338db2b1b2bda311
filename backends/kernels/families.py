"""The families of kernels that compete for a layer."""

from __future__ import annotations

from collections.abc import Sequence

from .base import Family, LayerSpec, Task
from .direct import DirectFamily
from .gather_family import GatherFamily
from .integer_family import IntegerFamily
from .plane_depthwise import PlaneDepthwiseFamily
from .rows_family import RowsFamily
from .tiles import Machine
from .winograd_family import WinogradFamily

__all__ = ["DENSE", "FAMILIES", "candidates"]

DENSE: tuple[Family, ...] = (DirectFamily(), IntegerFamily(), WinogradFamily(2), WinogradFamily(4))
"""Those that multiply by all weights, whatever they are, on images in blocks."""

FAMILIES: tuple[Family, ...] = (*DENSE, GatherFamily(), PlaneDepthwiseFamily(), RowsFamily())
"""The first one's first candidate is the default. Of candidates that cost the same the earlier is taken."""


def candidates(task: Task, machine: Machine, families: Sequence[Family] = FAMILIES) -> tuple[LayerSpec, ...]:
    """All of `families`, in their order."""
    return tuple(spec for family in families for spec in family.candidates(task, machine))
