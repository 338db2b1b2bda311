"""How numbers are written for a person, in tables, pages and on the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["change", "cost", "count", "density", "kept", "milliseconds", "relative", "size", "times"]

_PREFIXES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))


def count(value: float) -> str:
    """A number of things with three digits: 1234567 is ``1.23 M``; below 1000 as it is."""
    for scale, prefix in _PREFIXES:
        # What would round up to 1000 of the smaller prefix is written with the larger: 999,999 is 1.00 M.
        if abs(value) >= 0.9995 * scale:
            return three_digits(value / scale) + prefix
    return f"{value:g}"


def three_digits(value: float) -> str:
    places = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(places, 0), 2)}f}"


def size(value: int) -> str:
    """A number of bytes: ``58.9 MB``, in powers of ten."""
    return f"{value} bytes" if value < 1000 else count(value) + "B"


def kept(state: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line on what a model keeps from call to call, as bundles describe it; none for models that keep nothing."""
    rows = [(row["name"], row["dtype"], "x".join(map(str, row["shape"])) or "scalar") for row in state]
    return (
        [f"keeps from call to call: {', '.join(f'{name} ({dtype} {shape})' for name, dtype, shape in rows)}"]
        if rows
        else []
    )


def milliseconds(value: float) -> str:
    """``0.123 ms``, ``1.23 ms``, ``123 ms``."""
    if not value > 0:
        return f"{value:g} ms"
    places = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:.{min(places, 4)}f} ms"


def cost(value: float | None, unit: str) -> str:
    """What a kernel costs, ``s`` or ``cycles``: ``0.123 ms``, ``1.23 M cycles``; a dash where nobody knows."""
    if value is None:
        return "–"
    return milliseconds(1e3 * value) if unit == "s" else f"{count(round(value))} cycles"


def change(before: float, after: float) -> str:
    """How much smaller: ``-74.9 %``. A dash where there was nothing before."""
    if not before:
        return "–"
    share = 100 * (after - before) / before
    return f"{share:+.1f} %".replace("-", "−")


def density(weights: int, zeros: int) -> str:
    """The share of weights that are not zero: ``20.0 %``. A dash where there are no weights."""
    return f"{100 * (weights - zeros) / weights:.1f} %" if weights else "–"


def times(before: float, after: float) -> str:
    """How many times smaller or faster: ``3.97×``. A dash where there is nothing to divide by."""
    return f"{before / after:.2f}×" if after else "–"


def relative(value: float) -> str:
    """A difference: ``3.2e-16``; an exact 0 as ``0``."""
    return f"{value:.1e}" if value else "0"
