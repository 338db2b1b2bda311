"""Failures of a person's own code, in one line."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any

from .errors import InputError

__all__ = ["failure"]


def failure(what: str, error: BaseException, called: Callable[..., Any] | None = None) -> InputError:
    """``WHAT: ValueError: its message at file.py:12``, the line being the innermost.

    Args:
        what: failed.
        error: caught by who called the person's code.
        called: what was called; it is the place where nothing of it ran, since it takes other arguments.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = (frames[-1].filename, frames[-1].lineno) if frames else None
    if called is not None and len(frames) < 2:
        place = _definition(called)
    where = f" at {place[0]}:{place[1]}" if place else ""
    lines = str(error).strip().splitlines() or ["no message"]
    # Errors of a loader's processes come as a text that ends with what they said.
    reason = f"{lines[-1]}" if "Original Traceback" in str(error) else f"{type(error).__name__}: {lines[0]}"
    return InputError(f"{what}: {reason}{where}")


def _definition(called: Callable[..., Any]) -> tuple[str, int] | None:
    """File and line of a function, or of an object's ``__call__``; None for what is not written in Python."""
    own = inspect.unwrap(called)
    plain = own if inspect.isroutine(own) or inspect.isclass(own) else type(own).__call__
    code = getattr(inspect.unwrap(plain), "__code__", None)
    return None if code is None else (code.co_filename, code.co_firstlineno)
