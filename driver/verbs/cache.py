"""``reconvene cache``: what the user's cache folder holds, and emptying it."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import InputError
from ..answer import Answer, table
from ..wording import size

__all__ = ["ALL", "KINDS", "Kept", "Request", "clear", "kept", "run"]

KINDS: dict[str, tuple[str, ...]] = {
    "libraries": ("libraries/*",),
    "choices": ("choices-*.json",),
    "times": ("layer-times-*.json",),
    "tuned": ("tuned/*",),
    "runtimes": ("runtime-*", "wheel-*"),
    "hosts": ("host-*.json",),
    "estimates": ("estimate/*",),
    "data": ("*.npz",),
}
"""Compiled models, kernels chosen by timing, what layers take with zeros, kernels found by tuning, TVM's runtime for boards,
what this machine is, what `estimate` found, and decoded data sets: by the names of their files.
"""

ALL = "all"


@dataclass(frozen=True)
class Kept:
    """How much there is of one kind."""

    kind: str
    entries: int
    bytes: int


def kept() -> list[Kept]:
    """What there is of each kind."""
    return [Kept(kind, len(paths), sum(map(_size, paths))) for kind, paths in _paths(list(KINDS)).items()]


def clear(kinds: Sequence[str]) -> None:
    """Removes all of these kinds, or with ``all`` of every kind; it will be made again when it is needed.

    Raises:
        InputError: there is no such kind, or something cannot be removed.
    """
    unknown = [kind for kind in kinds if kind not in (*KINDS, ALL)]
    if unknown:
        raise InputError(f"the cache has no kind '{unknown[0]}'; choose from {', '.join([*KINDS, ALL])}")
    chosen = list(KINDS) if ALL in kinds else list(kinds)
    try:
        for paths in _paths(chosen).values():
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot remove '{error.filename}': {error.strerror}") from None


@dataclass(frozen=True)
class Request:
    """What ``reconvene cache`` is told; see its help."""

    clear: tuple[str, ...] = ()
    """Kinds."""


def run(request: Request) -> Answer:
    """What the user's cache folder holds, after what was to be cleared was removed from it."""
    clear(request.clear)
    found = kept()

    def show(console: Console) -> None:
        made = table("kind", "entries", "bytes", right=("entries", "bytes"))
        for entry in found:
            made.add_row(entry.kind, str(entry.entries), size(entry.bytes))
        console.print(made)
        console.print(f"in {cache_folder()}", markup=False, highlight=False, soft_wrap=True)

    data = {"folder": str(cache_folder()), "cleared": list(request.clear)}
    return Answer({**data, "kinds": [dataclasses.asdict(entry) for entry in found]}, show)


def _paths(kinds: Sequence[str]) -> dict[str, list[Path]]:
    folder = cache_folder()
    return {kind: sorted({path for pattern in KINDS[kind] for path in folder.glob(pattern)}) for kind in kinds}


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder. What another process is removing counts for nothing."""
    files = [path]
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in files:
        with suppress(OSError):
            total += file.stat().st_size
    return total
