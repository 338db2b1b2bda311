"""A batch that may vary is kept apart from the axes that a chain of reshapes joins it with for a while.

``nn.MultiheadAttention`` writes ``(L, N, H * D)`` as ``(L, N * H, D)``, swaps two axes and cuts the first one into ``N`` and
``H`` again. With a batch of unknown size, nobody can say which positions of ``N * H`` belong to which head. The same values
come from one reshape to ``(L, N, H, D)`` and one permutation, which join nothing.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from .axis_moves import Layout, Sizes, chain_from, is_move, moved
from .values import is_static, shape_of

__all__ = ["separate_batches"]

A = torch.ops.aten


def separate_batches(graph: fx.Graph) -> None:
    """Replaces chains of moves that join an axis of unknown size with others, and part them again."""
    seen: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node not in seen and is_move(node):
            chain = chain_from(node)
            seen.update(chain)
            _separate(graph, chain)


def _separate(graph: fx.Graph, chain: list[fx.Node]) -> None:
    """Replaces the longest parts of a chain that begin and end without such an axis, and have one in between."""
    start = 0
    while start < len(chain):
        end = next((end for end in range(len(chain), start + 1, -1) if _replace(graph, chain[start:end])), None)
        start = end if end is not None else start + 1


def _replace(graph: fx.Graph, chain: list[fx.Node]) -> bool:
    source, last = chain[0].all_input_nodes[0], chain[-1]
    shape = shape_of(source)
    layout: Layout = [[(axis,)] for axis in range(len(shape))]
    sizes: Sizes = {(axis,): size for axis, size in enumerate(shape)}
    joined = False
    for node in chain:
        found = moved(node, layout, sizes)
        if found is None:
            return False
        layout = found
        joined |= node is not last and _is_joined(layout, sizes)
    if not joined or _is_joined(layout, sizes):
        return False
    _emit(graph, source, last, layout, sizes)
    return True


def _is_joined(layout: Layout, sizes: Sizes) -> bool:
    """Whether an axis of unknown size lies in one with factors of a known one."""
    return any(len(axis) > 1 and any(not is_static(sizes[factor]) for factor in axis) for axis in layout)


def _emit(graph: fx.Graph, source: fx.Node, last: fx.Node, layout: Layout, sizes: Sizes) -> None:
    """One reshape into factors, one permutation, and one reshape to the last shape, as far as each is needed."""
    wanted = [factor for axis in layout for factor in axis]
    factors = sorted(wanted)
    with graph.inserting_before(last):
        known = {factor: _size(graph, source, factor, sizes) for factor in factors}
        value = source
        cut = [sizes[factor] for factor in factors]
        if list(map(str, cut)) != list(map(str, shape_of(source))):
            value = _call(graph, A.reshape.default, value, [known[factor] for factor in factors], last, cut)
        order = [factors.index(factor) for factor in wanted]
        if order != sorted(order):
            value = _call(graph, A.permute.default, value, order, last, [cut[place] for place in order])
        shape = shape_of(last)
        if list(map(str, shape)) != [str(size) for size in _shape(value)]:
            target = [_joined_size(graph, axis, known, size) for axis, size in zip(layout, shape, strict=True)]
            value = _call(graph, A.reshape.default, value, target, last, list(shape))
    last.replace_all_uses_with(value)


def _shape(node: fx.Node) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _size(graph: fx.Graph, source: fx.Node, factor: tuple[int, ...], sizes: Sizes) -> Any:
    """A factor's size: a number, or the node that reads it."""
    size = sizes[factor]
    if is_static(size):
        return size
    node = graph.call_function(A.sym_size.int, (source, factor[0]))
    node.meta["val"] = size
    return node


def _joined_size(graph: fx.Graph, axis: list[tuple[int, ...]], known: dict[tuple[int, ...], Any], size: Any) -> Any:
    """The size of an axis of the result: of an unknown one, that of its only factor."""
    return size if is_static(size) else known[axis[0]]


def _call(graph: fx.Graph, target: Any, value: fx.Node, argument: Any, like: fx.Node, shape: list[Any]) -> fx.Node:
    node = graph.call_function(target, (value, argument))
    node.meta = copy.copy(like.meta)
    node.meta["val"] = like.meta["val"].new_empty(shape)
    return node
