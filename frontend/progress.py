"""Progress a person can see; silent unless the command line switches it on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["stage"]


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Marks a phase of the work. (The driver's branch brings the real one; this keeps its contract.)"""
    yield
