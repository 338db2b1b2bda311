"""What was slow to find, kept in one JSON file for everything that it depends on but its own key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import ReconveneError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json

__all__ = ["KeptFile"]

_FORMAT = 1


@dataclass(frozen=True)
class KeptFile:
    """One file of the user's cache folder. One that is missing, damaged or of another version counts as empty.

    Attributes:
        setting: what all that is in it was found with; it is part of the file's name.
    """

    path: Path
    setting: str

    @classmethod
    def of(cls, kind: str, setting: Sequence[object], folder: Path | None = None) -> KeptFile:
        """The file of a kind for a setting, whose parts are told apart by their `repr`."""
        said = repr(tuple(setting))
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return cls((folder or cache_folder()) / f"{kind}-{digest}.json", said)

    def read(self, *names: str) -> list[dict[str, Any]]:
        """The parts of these names, each empty where it is missing or no object."""
        try:
            record = parse_json(read_text(self.path))
        except (OSError, ValueError):
            record = None
        known = record if isinstance(record, dict) and record.get("format") == _FORMAT else {}
        return [dict(part) if isinstance(part := known.get(name), dict) else {} for name in names]

    def write(self, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes all parts, with what another process has added to the file since it was read. A cache that cannot be
        written is done without.
        """
        before = dict(zip(parts, self.read(*parts), strict=True))
        record = {name: {**before[name], **part} for name, part in parts.items()}
        text = json.dumps({"format": _FORMAT, "setting": self.setting, **record}, indent=1, sort_keys=True)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, text + "\n")
        except (OSError, ReconveneError):
            return
