"""Whether a masked row of scores keeps a finite entry, so that its softmax is a distribution and not NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from ..liveness import KnownConstants
from ..values import Operation, is_tensor, operator_name, shape_of

__all__ = ["has_finite_entries"]

_PASSES = tuple(f"aten.{name}" for name in "alias clone contiguous detach to _to_copy type_as expand unsqueeze".split())
"""Operators that keep rows of the last axis as they are."""


def has_finite_entries(node: fx.Node, facts: KnownConstants) -> bool:
    """Returns if every row of the last axis holds a finite entry, and no NaN or infinity beside minus infinity.

    That is so where all entries are finite, and where a mask whose entries are known (a causal one) hides no whole row.
    """
    while True:
        found = facts.ranges[node]
        if found.finite:
            return True
        if found.nan or found.up or not is_tensor(node) or not shape_of(node):
            return False
        if bool(facts[node].known.any(-1).all()):
            return True  # Known entries are finite.
        if node.op != "call_function":
            return False
        op = Operation(node, facts.module)
        if op.name not in _PASSES or shape_of(op.node.all_input_nodes[0])[-1:] != shape_of(node)[-1:]:
            break
        node = op.node.all_input_nodes[0]
    if op.name == "aten.masked_fill":
        return _finite(op["self"], facts) and _shown(op["mask"], False, facts)
    if op.name == "aten.where" and "self" in op.arguments:
        first, second = op["self"], op["other"]
        return (_finite(first, facts) and _shown(op["condition"], True, facts)) or (
            _finite(second, facts) and _shown(op["condition"], False, facts)
        )
    if op.name == "aten.add" and all(is_tensor(op[name]) for name in ("self", "other")):
        pairs = ((op["self"], op["other"]), (op["other"], op["self"]))
        return any(_finite(one, facts) and has_finite_entries(other, facts) for one, other in pairs)
    return False


def _finite(value: Any, facts: KnownConstants) -> bool:
    return facts.ranges[value].finite if is_tensor(value) else bool(np.isfinite(value))


def _shown(mask: fx.Node, wanted: bool, facts: KnownConstants) -> bool:
    """Returns if every row of a mask holds an entry that is known to be `wanted`."""
    given = facts[mask].plain()
    if not given.rank or operator_name(mask) == "getitem":
        return False
    return bool((given.known & ((given.value != 0) == wanted)).any(-1).all())
