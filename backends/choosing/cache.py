"""Choices kept on disk, so that a layer shape is tried once on a machine.

One JSON file a target in the user's cache folder; an entry's key is everything that the choice depends on, the sources
of the schedules too. A file that is missing, damaged or of another version counts as empty: the choices are made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..code.code_version import code_version
from ..kernels.base import LayerSpec
from .kept_file import KeptFile

__all__ = ["ChoiceCache"]


class ChoiceCache:
    """Choices for one target, thread count and way of judging."""

    def __init__(self, target: Any, threads: int | None, judge: str, folder: Path | None = None) -> None:
        """`target` is TVM's; `judge` names the cost that decides."""
        self._file = KeptFile.of("choices", (str(target), threads, judge, code_version()), folder)
        self._entries, self._costs = self._file.read("choices", "costs")

    def get(self, layer: Sequence[LayerSpec]) -> int | None:
        """The index chosen among exactly these candidates before."""
        index = self._entries.get(_key(layer))
        return index if isinstance(index, int) and 0 <= index < len(layer) else None

    def costs(self, layer: Sequence[LayerSpec]) -> list[float]:
        """What these candidates cost when one of them was chosen; none if that is not known."""
        found = self._costs.get(_key(layer))
        if not isinstance(found, list) or len(found) != len(layer):
            return []
        return found if all(isinstance(cost, float) for cost in found) else []

    def put(self, found: Sequence[tuple[Sequence[LayerSpec], int, Sequence[float]]]) -> None:
        """Adds choices, and what all candidates cost, to the file. A cache that cannot be written is done without."""
        self._entries.update({_key(layer): index for layer, index, _ in found})
        self._costs.update({_key(layer): [float(cost) for cost in costs] for layer, _, costs in found})
        self._file.write({"choices": self._entries, "costs": self._costs})


def _key(layer: Sequence[LayerSpec]) -> str:
    return hashlib.sha256(repr(tuple(layer)).encode()).hexdigest()
