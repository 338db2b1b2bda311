"""Inputs at other sizes than the example's, where a graph was captured with sizes that may vary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree

from .check_inputs import resized

__all__ = ["at_other_sizes"]


def at_other_sizes(module: fx.GraphModule, example_inputs: Sequence[Any]) -> tuple[Any, ...] | None:
    """The example with every size that may vary half as large again (at least one more), within its bounds.

    None where no size may vary. Positions are repeated, so that a mask stays a mask, and ids stay within their table.
    """
    holders = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    leaves, structure = pytree.tree_flatten(tuple(example_inputs))
    if len(holders) != len(leaves):
        return None
    pairs = [
        (size, number)
        for holder, leaf in zip(holders, leaves, strict=True)
        if isinstance(holder, torch.Tensor) and isinstance(leaf, torch.Tensor)
        for size, number in zip(holder.shape, leaf.shape, strict=True)
        if not isinstance(size, int)
    ]
    chosen = _chosen(pairs)
    if not chosen:
        return None
    new = [
        resized(leaf, [_size(size, number, chosen) for size, number in zip(holder.shape, leaf.shape, strict=True)])
        if isinstance(holder, torch.Tensor) and isinstance(leaf, torch.Tensor)
        else leaf
        for holder, leaf in zip(holders, leaves, strict=True)
    ]
    return tuple(pytree.tree_unflatten(new, structure))


def _chosen(pairs: Sequence[tuple[Any, int]]) -> dict[Any, int]:
    """A number for every symbol, other than what the example has."""
    chosen: dict[Any, int] = {}
    for size, number in pairs:
        unknown = [symbol for symbol in size.node.expr.free_symbols if symbol not in chosen]
        if len(unknown) == 1:
            found = sympy.solve(size.node.expr.subs(chosen) - number, unknown[0])
            if len(found) == 1 and found[0].is_integer:
                chosen[unknown[0]] = int(found[0])
    return {symbol: _other(number, *_bounds(symbol, pairs)) for symbol, number in chosen.items()}


def _bounds(symbol: Any, pairs: Sequence[tuple[Any, int]]) -> tuple[int, int]:
    """The least and the largest number a symbol may stand for."""
    for size, _ in pairs:
        known = size.node.shape_env.var_to_range.get(symbol) if size.node.shape_env is not None else None
        if known is not None:
            upper = int(known.upper) if isinstance(known.upper, sympy.Integer) else 1 << 62
            return int(known.lower), upper
    return 0, 1 << 62


def _other(number: int, least: int, largest: int) -> int:
    """Half as large again if that is allowed, or as near to it as may be; else one less; else the same."""
    larger = min(max(number + 1, number + number // 2), largest)
    return larger if larger > number else max(number - 1, least)


def _size(size: Any, number: int, chosen: dict[Any, int]) -> int:
    """What a size of the graph becomes."""
    if isinstance(size, int):
        return number
    new = size.node.expr.subs(chosen)
    return int(new) if new.is_number else number
