"""How many threads TVM's pool uses: said explicitly, because its default is half the cores on x86."""

from __future__ import annotations

import os
from functools import cache

import tvm

from ..frontend.errors import InputError

__all__ = ["available_threads", "use_threads"]

# TVM reads this once, when its pool starts, as the most threads it can ever use in the process.
os.environ.setdefault("TVM_NUM_THREADS", str(os.cpu_count() or 1))

_STRONGEST_CORES_FIRST = 1


@cache
def available_threads() -> int:
    """The most threads a model can run with in this process."""
    setting = os.environ["TVM_NUM_THREADS"]
    return int(setting) if setting.isdigit() and int(setting) > 0 else os.cpu_count() or 1


def use_threads(threads: int) -> None:
    """Sets the pool's size for the calls that follow on this thread.

    Raises:
        InputError: `threads` is below 1 or above what the pool can have.
    """
    most = available_threads()
    if not 1 <= threads <= most:
        raise InputError(f"threads must be between 1 and {most}, got {threads}; for more set TVM_NUM_THREADS first")
    tvm.get_global_func("runtime.config_threadpool")(_STRONGEST_CORES_FIRST, threads)
