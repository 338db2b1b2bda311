"""Which functions read a module's ``training`` while it is captured: if only layers of torch's own do, only flags differ."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType

from torch import nn

__all__ = ["Reads", "reads_of_training"]

Reads = dict[CodeType, list[nn.Module]]
"""The functions that read a module's ``training``, with these modules."""

_lock = threading.Lock()
_collectors: list[tuple[int, Reads]] = []


@contextmanager
def reads_of_training() -> Iterator[Reads]:
    """Collects who reads a module's ``training`` in this thread within the block."""
    entry: tuple[int, Reads] = (threading.get_ident(), {})
    with _lock:
        if not _collectors:
            setattr(nn.Module, "training", property(_read, _write))  # noqa: B010
        _collectors.append(entry)
    try:
        yield entry[1]
    finally:
        with _lock:
            _collectors[:] = [other for other in _collectors if other is not entry]
            if not _collectors:
                delattr(nn.Module, "training")


def _read(module: nn.Module) -> bool:
    try:
        value: bool = module.__dict__["training"]
    except KeyError:
        raise AttributeError("training") from None
    for thread, reads in _collectors:
        if thread == threading.get_ident():
            reads.setdefault(sys._getframe(1).f_code, []).append(module)
    return value


def _write(module: nn.Module, value: bool) -> None:
    module.__dict__["training"] = value
