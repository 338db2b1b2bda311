"""Edits of JSON: of its values, of its structure, and of its text."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

__all__ = ["edited_bytes", "edited_json", "edited_text"]

_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 64, 1 << 31, 1 << 63, 1 << 80, -(1 << 63), 0.5, 1e300, "", "0", "input", "float64",
    "int8", "../x", "/etc/passwd", "model.so", "\x00", "\x1b[2J", "x" * 5000, [], {}, [[]], [1, 3, 8, 8], {"kind": "tensor"},
)  # fmt: skip


def edited_json(value: Any, source: random.Random) -> Any:
    """A copy of `value` in which one thing is another: a number moved, a field gone, new or renamed, two exchanged."""
    made = copy.deepcopy(value)
    holder, key = source.choice(list(_places(made)))
    kind = source.randrange(7)
    if kind == 0:
        holder[key] = source.choice(_ODD)
    elif kind == 1:
        holder[key] = _moved(holder[key], source)
    elif kind == 2:
        del holder[key]
    elif kind == 3 and isinstance(holder, dict):
        holder[source.choice(("flags", "note", "bytes", "file", "kind", ""))] = source.choice(_ODD)
    elif kind == 4:
        other = source.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        holder[key], holder[other] = holder[other], holder[key]
    elif kind == 5:
        place, step = source.choice(list(_places(made)))
        place[step] = copy.deepcopy(holder[key])
    elif isinstance(holder, dict):
        holder[source.choice((key + "s", key.upper(), f" {key}"))] = holder.pop(key)
    else:
        holder.insert(key, copy.deepcopy(holder[key]))
    return made


def edited_text(value: Any, source: random.Random) -> bytes:
    """`value` as JSON that was edited as text: cut, with a byte flipped, a field twice, or a number that JSON does not have."""
    text = json.dumps(value, indent=2)
    kind = source.randrange(4)
    if kind == 0:
        return text[: source.randrange(len(text))].encode()
    if kind == 1:
        return edited_bytes(text.encode(), source)
    if kind == 2:
        field = source.choice([key for holder, key in _places(value) if isinstance(holder, dict)])
        return text.replace(f'"{field}":', f'"{field}": {json.dumps(source.choice(_ODD))}, "{field}":', 1).encode()
    digits = [index for index, letter in enumerate(text) if letter.isdecimal()]
    place = source.choice(digits)
    return (text[:place] + source.choice(("NaN", "Infinity", "-", "9" * 5000, "1e999")) + text[place + 1 :]).encode()


def edited_bytes(contents: bytes, source: random.Random) -> bytes:
    """`contents` with a few bits flipped."""
    made = bytearray(contents)
    for _ in range(source.choice((1, 1, 1, 4))):
        made[source.randrange(len(made))] ^= 1 << source.randrange(8)
    return bytes(made)


def _places(value: Any) -> Any:
    """Every container in `value` with each of its keys."""
    steps = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for step in steps:
        yield value, step
        yield from _places(value[step])


def _moved(value: Any, source: random.Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return source.choice((value + 1, value - 1, value * 2, -value, value + 64, value ^ 1, float(value), str(value)))
    if isinstance(value, float):
        return source.choice((value + 1, -value, int(value), str(value)))
    if isinstance(value, str) and value:
        place = source.randrange(len(value))
        return value[:place] + source.choice("0af/.\\ A") + value[place + 1 :]
    return source.choice(_ODD)
