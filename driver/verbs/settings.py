"""``NAME=VALUE`` and ``PATTERN=STRUCTURE`` pairs of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...frontend.base.errors import InputError
from ...passes.pruning.structure_plan import StructurePlan

__all__ = ["method_settings", "structures_asked"]


def method_settings(score: str | None, settings: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs, whole numbers and true and false read as such. Raises InputError for anything else."""
    found: dict[str, Any] = {} if score is None else {"score": score}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name or name in found:
            raise InputError(f"'{setting}' is no setting; write each once as NAME=VALUE, such as threshold=global")
        found[name] = {"true": True, "false": False}.get(value, int(value) if value.isdecimal() else value)
    return found


def structures_asked(given: Sequence[str]) -> Mapping[str, str] | None:
    """``PATTERN=STRUCTURE`` pairs, a structure alone being for all other layers, or a plan's ``.json``; None if there are none.

    Raises:
        InputError: two are for the same pattern, or one names none; or a plan is none, or not alone.
    """
    plans = [text for text in given if text.endswith(".json") and "=" not in text]
    if plans:
        if len(given) > 1:
            raise InputError(f"the plan '{plans[0]}' says what every layer takes; leave the other --structure out")
        return StructurePlan.load(plans[0])
    found: dict[str, str] = {}
    for text in given:
        pattern, equals, structure = text.partition("=")
        if not equals:
            pattern, structure = "*", text
        if not pattern or not structure:
            raise InputError(
                f"'{text}' names no structure for a pattern; write PATTERN=STRUCTURE, such as 'layer1.*=2:4'"
            )
        if pattern in found:
            raise InputError(f"two structures are for '{pattern}': {found[pattern]} and {structure}; name one")
        found[pattern] = structure
    return found or None
