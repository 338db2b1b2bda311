"""Which variant was served last, so that a server that was killed comes back with it.

The file lies outside the portfolio, which may be read-only and may be served by several processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json
from ..portfolio.manifest import Portfolio

__all__ = ["commit", "committed", "default_state_file"]

_FORMAT = 1


def default_state_file(portfolio: Portfolio) -> Path:
    """In the user's state folder (``XDG_STATE_HOME``, or ``~/.local/state``), one file for each portfolio's path."""
    root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    mark = hashlib.sha256(str(portfolio.folder.resolve()).encode()).hexdigest()[:12]
    return Path(root) / "reconvene" / "serving" / f"{portfolio.name}-{mark}.json"


def commit(path: Path, portfolio: Portfolio, variant: str) -> None:
    """Writes that `variant` is served; the file says that or what it said before, whenever the process is killed.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write '{path}': {error.strerror}; name another file with --state") from None
    write_text(path, json.dumps({"format": _FORMAT, "portfolio": portfolio.name, "variant": variant}) + "\n")


def committed(path: Path, portfolio: Portfolio) -> str | None:
    """The variant that was served last; None if the file is missing, damaged, or of another portfolio."""
    try:
        values = parse_json(read_text(path))
        wanted = (values["format"], values["portfolio"]) == (_FORMAT, portfolio.name)
        name = values["variant"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if wanted and any(variant.name == name for variant in portfolio.variants) else None
