"""JSON that somebody else wrote: parsed so that it says one thing only, and read field by field."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

__all__ = ["json_array", "json_count", "json_number", "json_object", "json_text", "parse_json", "shortened"]

_Pairs = list[tuple[str, Any]]

_LARGEST = sys.float_info.max


def parse_json(
    text: str | bytes, *, nonfinite: bool = False, make_object: Callable[[_Pairs], Any] | None = None
) -> Any:
    """The value of a JSON text, in UTF-8.

    Args:
        nonfinite: whether ``NaN`` and ``Infinity`` may stand for numbers, as in figures that this package wrote.
        make_object: makes something else of an object's keys and values; it has to look at repeated keys itself.

    Raises:
        ValueError: it is not JSON, says a thing twice (readers differ in which of two they take), has numbers that JSON has
            not, or of thousands of digits, or is nested so deeply that Python's reader gives up.
    """
    options: dict[str, Any] = {} if nonfinite else {"parse_constant": _no_constant}
    try:
        plain = text if isinstance(text, str) else text.decode("utf-8")
        return json.loads(plain, object_pairs_hook=make_object or _distinct, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_object(value: object, fields: Collection[str] | None = None) -> dict[str, Any]:
    """`value`, an object; with `fields` one that has these and no others. Raises ValueError else."""
    if not isinstance(value, dict):
        raise ValueError(f"{shortened(value)} is no JSON object")
    if fields is not None and value.keys() != set(fields):
        if missing := sorted(set(fields) - value.keys()):
            raise ValueError(f"it lacks '{missing[0]}'")
        raise ValueError(f"unknown field {shortened(min(value.keys() - set(fields)))}")
    return value


def json_array(value: object) -> list[Any]:
    """`value`, an array. Raises ValueError else."""
    if not isinstance(value, list):
        raise ValueError(f"{shortened(value)} is no JSON array")
    return value


def json_text(value: object, what: str, among: Sequence[str] | None = None) -> str:
    """`value`, a text; with `among` one of these. Raises ValueError else."""
    if not isinstance(value, str):
        raise ValueError(f"{what} {shortened(value)} is no text")
    if among is not None and value not in among:
        raise ValueError(f"{what} {shortened(value)} is none of {', '.join(among)}")
    return value


def json_count(value: object, what: str, most: int = 2**63 - 1) -> int:
    """`value`, a whole number from 0 to `most`. Raises ValueError else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{what} {shortened(value)} is no whole number from 0")
    if value > most:
        raise ValueError(f"{what} {shortened(value)} is above {most}")
    return value


def json_number(value: object, what: str, most: float = math.inf) -> float:
    """`value`, a number from 0 to `most`. Raises ValueError else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= min(most, _LARGEST):
        raise ValueError(f"{what} {shortened(value)} is no number from 0{'' if math.isinf(most) else f' to {most:g}'}")
    return float(value)


def shortened(value: object) -> str:
    """`value` as Python writes it, for messages."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _distinct(pairs: _Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it says '{twice[:60]}' twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
