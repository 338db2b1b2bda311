"""Where what was slow to make is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder that ``RECONVENE_CACHE`` names, else ``reconvene`` where the operating system has its caches.

    It need not exist.
    """
    named = os.environ.get("RECONVENE_CACHE")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "reconvene"
