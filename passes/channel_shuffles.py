"""Finds chains of reshapes and permutations that do nothing but reorder one axis, and makes each one ``index_select``.

Every axis is followed through the chain as a list of named factors; a reshape cuts or joins factors, a permutation moves
them. If in the end each axis holds its own factors and only one has them in another order, the chain is a permutation.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import fx

from .rules.layout import permutation_of, refine
from .values import MUTATED, Operation, is_static, is_tensor, operator_name, shape_of

__all__ = ["fuse_channel_shuffles"]

_PERMUTES = ("permute", "transpose", "swapaxes", "swapdims", "movedim")
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


def fuse_channel_shuffles(graph: fx.Graph) -> dict[str, torch.Tensor]:
    """Turns chains that permute one axis into ``index_select``: any set of channels may then leave it."""
    tables: dict[str, torch.Tensor] = {}
    seen: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node in seen or not _is_move(node):
            continue
        chain = _chain_from(node)
        seen.update(chain)
        _fuse_chain(graph, chain, tables)
    _fuse_native_shuffles(graph, tables)
    return tables


def _is_move(node: fx.Node) -> bool:
    return (
        node.op == "call_function"
        and is_tensor(node)
        and operator_name(node).removeprefix("aten.") in _MOVES
        and not node.meta.get(MUTATED)
    )


def _chain_from(node: fx.Node) -> list[fx.Node]:
    chain = [node]
    while len(chain[-1].users) == 1 and _is_move(user := next(iter(chain[-1].users))):
        chain.append(user)
    return chain


def _fuse_chain(graph: fx.Graph, chain: list[fx.Node], tables: dict[str, torch.Tensor]) -> None:
    """Replaces the longest part of the chain that is a permutation of one axis."""
    for start in range(len(chain)):
        source = chain[start].all_input_nodes[0]
        for end in range(len(chain), start + 1, -1):
            found = _axis_permutation(source, chain[start:end])
            if found is not None:
                _select(graph, chain[end - 1], source, *found, tables)
                return


def _fuse_native_shuffles(graph: fx.Graph, tables: dict[str, torch.Tensor]) -> None:
    for node in list(graph.nodes):
        if node.op == "call_function" and operator_name(node) in (
            "aten.channel_shuffle",
            "aten.native_channel_shuffle",
        ):
            source, groups = node.args[0], node.args[1]
            assert isinstance(source, fx.Node) and isinstance(groups, int)
            order = np.arange(shape_of(source)[1]).reshape(groups, -1).T.reshape(-1)
            _select(graph, node, source, 1, order, tables)


def _select(
    graph: fx.Graph, last: fx.Node, source: fx.Node, axis: int, order: np.ndarray, tables: dict[str, torch.Tensor]
) -> None:
    name = f"{last.name}_order"
    tables[name] = torch.from_numpy(order.astype(np.int64))
    with graph.inserting_before(last):
        table = graph.get_attr(name)
        select = graph.call_function(torch.ops.aten.index_select.default, (source, axis, table))
    mode = last.meta["val"].fake_mode if hasattr(last.meta["val"], "fake_mode") else None
    table.meta["val"] = mode.from_tensor(tables[name]) if mode is not None else tables[name]
    select.meta = copy.copy(last.meta)
    last.replace_all_uses_with(select)


def _axis_permutation(source: fx.Node, chain: list[fx.Node]) -> tuple[int, np.ndarray] | None:
    """The axis and its new order if the chain permutes exactly one axis and leaves the shape as it was."""
    shape = shape_of(source)
    if [str(size) for size in shape_of(chain[-1])] != [str(size) for size in shape]:
        return None
    if not any(operator_name(node).removeprefix("aten.") in _PERMUTES for node in chain):
        return None
    layout: list[list[tuple[int, ...]]] = [[(axis,)] for axis in range(len(shape))]
    sizes: dict[tuple[int, ...], object] = {(axis,): size for axis, size in enumerate(shape)}
    for node in chain:
        moved = _moved(node, layout, sizes)
        if moved is None:
            return None
        layout = moved
    return _single_axis_order(shape, layout, sizes)


def _moved(
    node: fx.Node, layout: list[list[tuple[int, ...]]], sizes: dict[tuple[int, ...], object]
) -> list[list[tuple[int, ...]]] | None:
    """How one operator moves the factors; factors are named by their path of subdivisions."""
    name = operator_name(node).removeprefix("aten.")
    source = node.all_input_nodes[0]
    if name in ("contiguous", "clone", "alias"):
        return layout
    if name in _PERMUTES:
        return [layout[axis] for axis in permutation_of(Operation(node, torch.nn.Module()))]
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


def _subdivide(
    named: list[tuple[int, ...]], goal: list[int], sizes: dict[tuple[int, ...], object]
) -> list[list[tuple[int, ...]]] | None:
    """Cuts an axis, made of named factors, into consecutive pieces of the goal's sizes."""
    queue = [factor for factor in named if sizes[factor] != 1]
    result: list[list[tuple[int, ...]]] = []
    for size in goal:
        piece: list[tuple[int, ...]] = []
        left = size
        while left > 1:
            if not queue:
                return None
            factor = queue.pop(0)
            whole = sizes[factor]
            if not is_static(whole):
                if len(goal) == 1:
                    return [[factor, *queue]]
                return None
            assert isinstance(whole, int)
            if left % whole == 0:
                piece.append(factor)
                left //= whole
            elif whole % left == 0:
                outer, inner = (*factor, 0), (*factor, 1)
                sizes[outer], sizes[inner] = left, whole // left
                piece.append(outer)
                queue.insert(0, inner)
                left = 1
            else:
                return None
        result.append(piece)
    return result if not queue else None


def _single_axis_order(
    shape: tuple[object, ...], layout: list[list[tuple[int, ...]]], sizes: dict[tuple[int, ...], object]
) -> tuple[int, np.ndarray] | None:
    moved: tuple[int, np.ndarray] | None = None
    for axis, factors in enumerate(layout):
        if any(factor[0] != axis for factor in factors):
            return None
        if factors == sorted(factors):
            continue
        if moved is not None or not isinstance(shape[axis], int):
            return None
        ordered = sorted(factors)
        extents = [int(sizes[factor]) for factor in ordered]  # type: ignore[call-overload]
        order = np.arange(int(np.prod(extents))).reshape(extents).transpose([ordered.index(f) for f in factors])
        moved = (axis, order.reshape(-1))
    return moved
