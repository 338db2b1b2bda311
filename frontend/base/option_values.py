"""Values of options, written as text or given as what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import InputError

__all__ = ["of_kind"]


def of_kind(name: str, kind: str, value: Any) -> Any:
    """A value of a dataclass's field, from text or from a value like it.

    Args:
        name: of the field.
        kind: its annotation as text, as ``from __future__ import annotations`` leaves it. Values of kinds that are not in
            `_KINDS` stay as they are.
        value: what was given.

    Raises:
        InputError: there is no such value.
    """
    if kind not in _KINDS:
        return value
    convert, example = _KINDS[kind]
    try:
        return convert(value)
    except (ValueError, TypeError, OverflowError):
        raise InputError(f"'{value}' is no value of {name}; write {example}") from None


def _whole(value: Any) -> int:
    if float(value) != int(float(value)):
        raise ValueError(value)
    return int(float(value))


def _parts(value: Any) -> list[Any]:
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
    return [part for part in parts if str(part).strip()]


_KINDS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "int": (_whole, "a whole number"),
    "float": (float, "a number"),
    "str": (str, "a name"),
    "tuple[float, ...]": (lambda value: tuple(map(float, _parts(value))), "numbers with commas, such as 80,120"),
    "tuple[str, ...]": (
        lambda value: tuple(str(part).strip() for part in _parts(value)),
        "names with commas, such as layer1.*,layer2.*",
    ),
}
"""By a field's type: what makes a value of a text or a number, and an example of such a text."""
