"""Where what was slow to make is kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """The folder that ``RECONVENE_CACHE`` names, else ``reconvene`` where the operating system has its caches.

    It need not exist.

    Raises:
        InputError: there is neither, nor a home folder.
    """
    named = os.environ.get("RECONVENE_CACHE")
    if named:
        return Path(named).absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "reconvene"
    try:
        return Path.home() / ".cache" / "reconvene"
    except RuntimeError:
        raise InputError("there is no home folder for the cache; name a folder with RECONVENE_CACHE") from None
