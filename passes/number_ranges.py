"""Between what bounds a number lies that is known only when the model runs: a size, what is computed of sizes, an entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from .intervals import ANYTHING, FINITE, Range, inverse, negative, product, total
from .values import operator_name

__all__ = ["number_range"]

_INF = math.inf

_RangeOf = Callable[[Any], Range]


def number_range(node: fx.Node, of: _RangeOf) -> Range:
    """The range of a whole or floating-point number; `of` gives those of what it is made of."""
    name = operator_name(node).removeprefix("aten.")
    if name == "sym_size":  # What values decide (``x[mask]``) may be empty.
        return Range(0 if _by_values(node.meta["val"]) else 1, _INF)
    known = _RULES.get(name)
    found = known(*map(of, node.args)) if known is not None and not node.kwargs else ANYTHING
    return found if found.finite or not isinstance(node.meta.get("val"), int | torch.SymInt) else FINITE


def _by_values(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and any(str(symbol).startswith("u") for symbol in size.node.expr.free_symbols)


def _floor(a: Range, b: Range) -> Range:
    found = product(a, inverse(b))
    low, high = (bound if math.isinf(bound) else float(math.floor(bound)) for bound in (found.low, found.high))
    return Range(low, high) if found.finite else found


def _power(base: Range, exponent: Range) -> Range:
    """Of a positive number to a power that is known."""
    if not base.finite or base.low <= 0 or exponent.low != exponent.high or not exponent.finite:
        return ANYTHING
    ends = [_raised(bound, exponent.low) for bound in (base.low, base.high)]
    return Range(min(ends), max(ends))


def _raised(bound: float, exponent: float) -> float:
    if math.isinf(bound):
        return _INF if exponent > 0 else 1.0 if exponent == 0 else 0.0
    try:
        return float(bound**exponent)
    except OverflowError:
        return _INF


def _root(a: Range) -> Range:
    return _power(a, Range(0.5, 0.5)) if a.low > 0 else Range(0, _INF) if a.finite and a.low == 0 else ANYTHING


_RULES: Mapping[str, Callable[..., Range]] = {
    "add": total,
    "sub": lambda a, b: total(a, negative(b)),
    "mul": product,
    "truediv": lambda a, b: product(a, inverse(b)),
    "floordiv": _floor,
    "pow": _power,
    "neg": negative,
    "sym_float": lambda a: a,
    "item": lambda a: a,
    "_sym_sqrt": _root,
    "sym_max": lambda a, b: Range(max(a.low, b.low), max(a.high, b.high)) if a.finite and b.finite else ANYTHING,
    "sym_min": lambda a, b: Range(min(a.low, b.low), min(a.high, b.high)) if a.finite and b.finite else ANYTHING,
}
"""By the operator's name, which Python's own have, too."""
