"""Choices kept on disk, so that a layer shape is tried once on a machine.

One JSON file a target in the user's cache folder; an entry's key is everything that the choice depends on, the sources
of the schedules too. A file that is missing, damaged or of another version counts as empty: the choices are made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import ReconveneError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json
from ..code.code_version import code_version
from ..kernels.base import LayerSpec

__all__ = ["ChoiceCache"]

_FORMAT = 1


class ChoiceCache:
    """Choices for one target, thread count and way of judging."""

    def __init__(self, target: Any, threads: int | None, judge: str, folder: Path | None = None) -> None:
        """`target` is TVM's; `judge` names the cost that decides."""
        self._setting = repr((str(target), threads, judge, code_version()))
        digest = hashlib.sha256(self._setting.encode()).hexdigest()[:16]
        self._path = (folder or cache_folder()) / f"choices-{digest}.json"
        self._entries, self._costs = _read(self._path)

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
        # Another process may have added to the file since it was read.
        choices, costs = _read(self._path)
        record = {"choices": {**choices, **self._entries}, "costs": {**costs, **self._costs}}
        text = json.dumps({"format": _FORMAT, "setting": self._setting, **record}, indent=1, sort_keys=True)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, text + "\n")
        except (OSError, ReconveneError):
            return


def _key(layer: Sequence[LayerSpec]) -> str:
    return hashlib.sha256(repr(tuple(layer)).encode()).hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choices and costs."""
    try:
        record = parse_json(read_text(path))
    except (OSError, ValueError):
        return {}, {}
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        return {}, {}
    parts = [record.get(name) for name in ("choices", "costs")]
    choices, costs = (dict(part) if isinstance(part, dict) else {} for part in parts)
    return choices, costs
