"""Groups of small files kept on disk by key, up to a limit; the least recently used go first.

A group is one zip archive that appears whole or not at all, so processes need no lock. Anything wrong with one (a
checksum, another owner, no room) is as if it were not there. Packages for this keep Python objects as pickles, which
would have to be loaded again.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import ReconveneError
from .files import open_regular, replacing
from .systems import is_ours
from .zip_files import members, reading_zip

__all__ = ["FileCache"]

_SUFFIX = ".zip"


class FileCache:
    """Files by key in `folder`, in all at most `limit` bytes; a limit of 0 keeps none."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit

    def get(self, key: str) -> dict[str, bytes] | None:
        """The files kept for `key`, by name; None if there are none, or they are damaged."""
        path = self._path(key)
        try:
            if not is_ours(path):
                return None  # Code that somebody else put there is not run.
            with open_regular(path) as stream, reading_zip(stream, f"'{path}'") as archive:
                found = members(archive, f"'{path}'")
        except Exception:  # zipfile and zlib raise a dozen kinds of them for damaged files.
            return None
        with suppress(OSError):
            os.utime(path)
        return found

    def put(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keeps `files`, and drops what was used longest ago if there is no room. A folder that cannot be written is
        done without.
        """
        if sum(map(len, files.values())) > self._limit:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(self._path(key)) as temporary, zipfile.ZipFile(temporary, "w") as archive:
                for name, contents in files.items():
                    archive.writestr(name, contents)
        except (OSError, ReconveneError):
            return
        self._shrink()

    def drop(self, key: str) -> None:
        """Forgets `key`."""
        with suppress(OSError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        kept = []
        # What an interrupted process left behind (its name begins with a dot) ages and goes like all else.
        for path in self._folder.iterdir():
            with suppress(OSError):
                facts = path.stat()
                kept.append((facts.st_mtime_ns, facts.st_size, path))
        room = self._limit
        for _, size, path in sorted(kept, key=lambda entry: -entry[0]):
            room -= size
            if room < 0:
                with suppress(OSError):
                    path.unlink()
