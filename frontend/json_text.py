"""JSON that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["parse_json"]

_Pairs = list[tuple[str, Any]]


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


def _distinct(pairs: _Pairs) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it says '{twice[:60]}' twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
