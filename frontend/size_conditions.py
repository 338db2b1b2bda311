"""Conditions on sizes, such as ``s77 % 2 == 0``, as text: torch.export writes them down, also into files.

They are read, not run: whole numbers, names, arithmetic and comparisons, and nothing else.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["holds", "names_in", "only_one_breaks", "readable"]

_ARITHMETIC: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS = {"min": min, "max": max, "Min": min, "Max": max}


def readable(condition: str) -> bool:
    """Returns if the condition consists of what is understood here."""
    try:
        holds(condition, dict.fromkeys(names_in(condition), 8191))
    except (SyntaxError, TypeError, KeyError):
        return False
    return True


def names_in(condition: str) -> tuple[str, ...]:
    """The sizes that a condition is about."""
    return tuple(
        dict.fromkeys(
            node.id for node in ast.walk(_parsed(condition)) if isinstance(node, ast.Name) and node.id not in _FUNCTIONS
        )
    )


def only_one_breaks(condition: str) -> bool:
    """Returns if a condition on one size holds for all small sizes but 1."""
    if not readable(condition) or len(names_in(condition)) != 1:
        return False
    name = names_in(condition)[0]
    return not holds(condition, {name: 1}) and all(holds(condition, {name: size}) for size in range(2, 33))


def holds(condition: str, sizes: Mapping[str, int]) -> bool:
    """Returns if the condition is true of these sizes; a division by nothing is false."""
    try:
        return bool(_value(_parsed(condition), sizes))
    except ZeroDivisionError:
        return False


@lru_cache(maxsize=4096)
def _parsed(condition: str) -> ast.expr:
    return ast.parse(condition.strip(), mode="eval").body


def _value(node: ast.AST, sizes: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        return _ARITHMETIC[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        value = _value(node.operand, sizes)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.BoolOp):
        parts = (_value(part, sizes) for part in node.values)
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARISONS for op in node.ops):
        values = [_value(part, sizes) for part in (node.left, *node.comparators)]
        return all(_COMPARISONS[type(op)](a, b) for op, a, b in zip(node.ops, values, values[1:], strict=False))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
        return _FUNCTIONS[node.func.id](*(_value(part, sizes) for part in node.args))
    raise TypeError(f"'{ast.unparse(node)}' is no condition on sizes")
