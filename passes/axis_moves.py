"""How chains of reshapes and permutations move the factors of axes.

Every axis is followed as a list of named factors, outermost first; a reshape cuts or joins factors, a permutation moves
them. A factor is named by the axis it comes from and its path of subdivisions.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from .factors import permutation_of, refine
from .values import MUTATED, Operation, dimensions, is_static, is_tensor, is_unit, operator_name, shape_of

__all__ = ["PERMUTES", "Layout", "Sizes", "chain_from", "is_move", "moved"]

Layout = list[list[tuple[int, ...]]]
"""For every axis, its factors."""

Sizes = dict[tuple[int, ...], Any]
"""By factor; a number, or a SymInt where an axis may vary."""

PERMUTES = ("permute", "transpose", "swapaxes", "swapdims", "movedim")
_MOVES = (
    "view",
    "reshape",
    "_unsafe_view",
    "flatten",
    "unflatten",
    "permute",
    "transpose",
    "swapaxes",
    "swapdims",
    "movedim",
    "contiguous",
    "clone",
    "squeeze",
    "unsqueeze",
    "alias",
)


def is_move(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and is_tensor(node)
        and operator_name(node).removeprefix("aten.") in _MOVES
        and not node.meta.get(MUTATED)
    )


def chain_from(node: fx.Node) -> list[fx.Node]:
    chain = [node]
    while len(chain[-1].users) == 1 and is_move(user := next(iter(chain[-1].users))):
        chain.append(user)
    return chain


def moved(node: fx.Node, layout: Layout, sizes: Sizes) -> Layout | None:
    """The factors of every axis after one operator; None where it does more than move them. New factors go into `sizes`."""
    name = operator_name(node).removeprefix("aten.")
    source = node.all_input_nodes[0]
    if name in ("contiguous", "clone", "alias"):
        return layout
    if name in PERMUTES:
        return [layout[axis] for axis in permutation_of(Operation(node))]
    factors = refine(shape_of(source), shape_of(node))
    if factors is None:
        return None
    pieces: dict[int, list[tuple[int, ...]]] = {}
    for axis, part in enumerate(factors.source):
        named = _subdivide(layout[axis], [factors.sizes[number] for number in part], sizes)
        if named is None:
            return None
        pieces.update(zip(part, named, strict=True))
    return [[piece for number in part for piece in pieces[number]] for part in factors.target]


def _subdivide(named: list[tuple[int, ...]], goal: list[int], sizes: Sizes) -> Layout | None:
    """Cuts an axis, made of named factors, into consecutive pieces of the goal's sizes."""
    queue = [factor for factor in named if not is_unit(sizes[factor])]
    result: list[list[tuple[int, ...]]] = []
    for size in goal:
        piece: list[tuple[int, ...]] = []
        left = size
        while left > 1:
            if not queue:
                return None
            factor = queue.pop(0)
            (whole,) = dimensions((sizes[factor],))
            if left % whole == 0:
                piece.append(factor)
                left //= whole
            elif is_static(sizes[factor]) and whole % left == 0:
                outer, inner = (*factor, 0), (*factor, 1)
                sizes[outer], sizes[inner] = left, whole // left
                piece.append(outer)
                queue.insert(0, inner)
                left = 1
            else:
                return None
        result.append(piece)
    return result if not queue else None
