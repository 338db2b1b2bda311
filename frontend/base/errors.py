"""Errors meant for the person at the keyboard: one line, what, where, what to do.

Refusals (a channel that cannot go, an operator without a rule) are *values* in a report, never exceptions.
"""

from __future__ import annotations

__all__ = ["CaptureError", "CheckError", "InputError", "ReconveneError"]


class ReconveneError(Exception):
    """Base of every error this package raises on purpose. ``str(error)`` is one line for a person."""

    exit_code = 1


class InputError(ReconveneError, ValueError):
    """The caller gave something that cannot be used: a file, a number, a name, a shape."""

    exit_code = 2


class CaptureError(InputError):
    """The model cannot be turned into a graph."""


class CheckError(ReconveneError):
    """A result failed its own check and is withheld."""
