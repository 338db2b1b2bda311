"""What only some systems have, and what is done where they do not: locks between processes, owners of files, forks, cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Only Unix has it.
    fcntl = None  # type: ignore[assignment]

__all__ = ["at_forks", "is_ours", "may_run_on", "most_files", "try_lock", "turn_at"]


def try_lock(handle: int) -> bool:
    """Whether an open file or folder could be locked; it is until it is closed, or its process ends. Never without locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def turn_at(path: Path) -> Iterator[None]:
    """Lets in one process at a time, the others wait; all at once without locks, so that work may be done twice.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_ours(path: Path) -> bool:
    """Whether nobody else put a file or folder there; where files have no owners, whether there is one.

    Raises:
        OSError: there is none.
    """
    owner = path.stat().st_uid
    return not hasattr(os, "geteuid") or owner == os.geteuid()


def at_forks(**hooks: Callable[[], None]) -> None:
    """As `os.register_at_fork`; nothing where no process can be forked."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def may_run_on() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def most_files() -> int | None:
    """How many files, connections among them, this process may have open; None where nothing limits that."""
    try:
        import resource
    except ImportError:
        return None
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else allowed
