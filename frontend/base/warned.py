"""Warnings that name the line of whoever called us."""

from __future__ import annotations

import sys
import warnings

__all__ = ["warn_caller"]

_OWN = "reconvene"


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the first line up the stack that is none of this package's; at the first line of all where there is none."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _OWN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
