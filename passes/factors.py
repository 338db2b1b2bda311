"""The factors that a reshape cuts axes into, and the order that a permutation gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .values import Operation, dimensions, shape_of

__all__ = ["Factors", "listed", "permutation_of", "refine"]


@dataclass(frozen=True)
class Factors:
    """The common refinement of two shapes: sizes of the factors, and which of them each axis is made of, in order."""

    sizes: tuple[int, ...]
    source: tuple[tuple[int, ...], ...]
    target: tuple[tuple[int, ...], ...]


def refine(source: tuple[Any, ...], target: tuple[Any, ...]) -> Factors | None:
    """Factors of a row-major reshape, or None where the shapes have no common refinement (such as 3x4 -> 4x3)."""
    left, right = list(dimensions(source)), list(dimensions(target))
    if 0 in left or 0 in right:
        return None
    sizes: list[int] = []
    parts: tuple[list[list[int]], list[list[int]]] = ([[] for _ in left], [[] for _ in right])
    i = j = 0
    a, b = (left[0] if left else 1), (right[0] if right else 1)
    while i < len(left) and j < len(right):
        if a == 1:
            i += 1
            a = left[i] if i < len(left) else 1
            continue
        if b == 1:
            j += 1
            b = right[j] if j < len(right) else 1
            continue
        step = min(a, b)
        if max(a, b) % step:
            return None
        parts[0][i].append(len(sizes))
        parts[1][j].append(len(sizes))
        sizes.append(step)
        a, b = a // step, b // step
    rest = [size for size in left[i + 1 :] + right[j + 1 :] if size != 1]
    if a != 1 or b != 1 or rest:
        return None
    return Factors(tuple(sizes), tuple(map(tuple, parts[0])), tuple(map(tuple, parts[1])))


def permutation_of(op: Operation) -> tuple[int, ...]:
    """The permutation ``permute`` or a relative of it applies: source axis for every result axis."""
    rank = len(shape_of(op.node))
    order = list(range(rank))
    if "dims" in op.arguments:
        return tuple(axis % rank for axis in op["dims"])
    if "source" in op.arguments:
        moved = [int(axis) % rank for axis in listed(op["source"])]
        goals = [int(axis) % rank for axis in listed(op["destination"])]
        rest = iter(axis for axis in order if axis not in moved)
        return tuple(moved[goals.index(place)] if place in goals else next(rest) for place in order)
    names = [name for name in ("dim0", "dim1", "axis0", "axis1") if name in op.arguments]
    if names:
        first, second = (op[name] % rank for name in names)
    elif rank < 2:
        return tuple(order)
    elif op.name == "aten.numpy_T":
        return tuple(reversed(order))
    else:
        first, second = rank - 2, rank - 1
    order[first], order[second] = order[second], order[first]
    return tuple(order)


def listed(value: Any) -> list[Any]:
    """`value` as a list: axes are given as one number or several."""
    return list(value) if isinstance(value, list | tuple) else [value]
