"""``NAME=VALUE`` pairs of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...frontend.base.errors import InputError

__all__ = ["method_settings"]


def method_settings(score: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, whole numbers and true and false read as such. Raises InputError for anything else."""
    found: dict[str, Any] = {} if score is None else {"score": score}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name or name in found:
            raise InputError(f"'{setting}' is no setting; write each once as NAME=VALUE, such as threshold=global")
        found[name] = {"true": True, "false": False}.get(value, int(value) if value.isdecimal() else value)
    return found
