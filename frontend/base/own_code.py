"""Failures of a person's own code, in one line."""

from __future__ import annotations

import traceback

from .errors import InputError

__all__ = ["failure"]


def failure(what: str, error: BaseException) -> InputError:
    """``WHAT: ValueError: its message at file.py:12``, the line being the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    lines = str(error).strip().splitlines() or ["no message"]
    # Errors of a loader's processes come as a text that ends with what they said.
    reason = f"{lines[-1]}" if "Original Traceback" in str(error) else f"{type(error).__name__}: {lines[0]}"
    return InputError(f"{what}: {reason}{where}")
