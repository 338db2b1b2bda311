"""Finds chains of reshapes and permutations that do nothing but reorder one axis, and makes each one ``index_select``.

Every axis is followed through the chain as a list of factors (see `axis_moves`). If in the end each axis holds its own
factors and only one has them in another order, the chain is a permutation.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import fx

from .axis_moves import PERMUTES, Layout, Sizes, chain_from, is_move, moved
from .values import operator_name, shape_of

__all__ = ["fuse_channel_shuffles"]


def fuse_channel_shuffles(graph: fx.Graph) -> dict[str, torch.Tensor]:
    """Turns chains that permute one axis into ``index_select``: any set of channels may then leave it."""
    tables: dict[str, torch.Tensor] = {}
    seen: set[fx.Node] = set()
    for node in list(graph.nodes):
        if node in seen or not is_move(node):
            continue
        chain = chain_from(node)
        seen.update(chain)
        _fuse_chain(graph, chain, tables)
    _fuse_native_shuffles(graph, tables)
    return tables


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
    if not any(operator_name(node).removeprefix("aten.") in PERMUTES for node in chain):
        return None
    layout: Layout = [[(axis,)] for axis in range(len(shape))]
    sizes: Sizes = {(axis,): size for axis, size in enumerate(shape)}
    for node in chain:
        found = moved(node, layout, sizes)
        if found is None:
            return None
        layout = found
    return _single_axis_order(shape, layout, sizes)


def _single_axis_order(shape: tuple[object, ...], layout: Layout, sizes: Sizes) -> tuple[int, np.ndarray] | None:
    order_of: tuple[int, np.ndarray] | None = None
    for axis, factors in enumerate(layout):
        if any(factor[0] != axis for factor in factors):
            return None
        if factors == sorted(factors):
            continue
        if order_of is not None or not isinstance(shape[axis], int):
            return None
        ordered = sorted(factors)
        extents = [int(sizes[factor]) for factor in ordered]  # type: ignore[call-overload]
        order = np.arange(int(np.prod(extents))).reshape(extents).transpose([ordered.index(f) for f in factors])
        order_of = (axis, order.reshape(-1))
    return order_of
