"""What may be made for a budget, by name: what finds each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .channels import channels_for
from .ground import Choice, Ground
from .searched import searched_for
from .settings import CHANNELS, KNAPSACK, MAPPED, SEARCHED, SHRUNK
from .shrunk import shrunk_for
from .zeros import mapped_for, structure_for

__all__ = ["Finder", "finder"]

Finder = Callable[[Ground, str, float], Choice]
"""What meets a budget; raises OutOfReach where nothing does."""

_FINDERS: Mapping[str, Finder] = MappingProxyType(
    {
        CHANNELS: channels_for,
        KNAPSACK: channels_for,
        SHRUNK: shrunk_for,
        MAPPED: mapped_for,
        SEARCHED: searched_for,
    }
)


def finder(kind: str) -> Finder:
    """For a variant of `settings.KINDS`, or else a structure by its name."""
    return _FINDERS.get(kind, structure_for)
