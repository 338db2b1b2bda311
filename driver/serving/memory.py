"""How much memory there is, and giving back what nothing uses any more."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import tvm

__all__ = ["available_memory", "release_memory"]

_CGROUPS = Path("/sys/fs/cgroup")


def available_memory(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process can still take without swapping: of the machine, and of every control group around it.

    Args:
        cgroups: where control groups are mounted; version 2, and the memory controller of version 1.
        own: which groups the process is in.
    """
    return max(0, min(int(psutil.virtual_memory().available), *_group_rooms(cgroups, own)))


def release_memory() -> None:
    """Gives memory of models that are gone back to the system.

    TVM keeps the buffers of intermediate results for the next call of any model, and the C library keeps freed blocks.
    Buffers that are in use stay.
    """
    tvm.get_global_func("vm.builtin.memory_manager.clear")()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function; other C libraries have none."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def _group_rooms(cgroups: Path, own: Path) -> Iterator[int]:
    """What each group leaves, and one number that limits nothing. Page cache that can go at once counts as free."""
    yield 1 << 62
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            limit, used = _number(folder / names[0]), _number(folder / names[1])
            if limit is not None and used is not None:
                yield limit - used + _cache(folder / "memory.stat", names[2])
            if folder == root:
                break


def _cache(path: Path, key: str) -> int:
    return next((int(line.split()[1]) for line in _lines(path) if line.split()[:1] == [key]), 0)


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except OSError:
        return []
