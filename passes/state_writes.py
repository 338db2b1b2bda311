"""State as dataflow: a buffer is read at the start of a call, and written once, by a copy of a value that is computed.

Then a buffer's channels follow those of what is written to it (`rules.state`), so that they can go together. Buffers that are
written in other ways, in parts or through views, stay memory, from which nothing is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from ..frontend.writes import storage_of, written_operands, written_places
from .pure_forms import in_own_type, pure_form
from .values import STATE, is_static, is_tensor, same_shape, shape_of

__all__ = ["write_once"]

_COPY = torch.ops.aten.copy_.default


def write_once(graph: fx.Graph) -> None:
    """Makes the writes to a stored tensor one copy, where nobody could tell the difference. It is marked `STATE`."""
    storage = storage_of(graph)
    order = {node: place for place, node in enumerate(graph.nodes)}
    last_write: dict[fx.Node, int] = {}
    for node in graph.nodes:
        last_write.update((storage[operand], order[node]) for operand in written_operands(node))
    for place, calls in written_places(graph).items():
        sharers = [node for node, root in storage.items() if root is place]
        if place.op != "get_attr" or not all(map(written_operands, calls)) or not _whole(place, calls, sharers, order):
            continue
        copied = [call for call in calls if call.target is _COPY]
        # What is copied in stands for the buffer from then on, so nobody may write to it any more.
        if all(last_write.get(storage[call.args[1]], -1) < order[call] for call in copied):  # type: ignore[index]
            _write(graph, place, calls, order)


def _whole(place: fx.Node, calls: Sequence[fx.Node], sharers: Sequence[fx.Node], order: Mapping[fx.Node, int]) -> bool:
    """Whether every call writes all of the tensor, and views of it are read before the first, or taken after the last."""
    for call in calls:
        if written_operands(call)[0] not in (place, *calls) or not is_tensor(call) or not same_shape(call, place):
            return False
        if not _fits(place, call.args[1]) if call.target is _COPY else pure_form(call) is None:
            return False
    views = [node for node in sharers if node is not place and node not in calls]
    first, last = order[calls[0]], order[calls[-1]]
    return all(order[view] > last or all(order[user] < first for user in view.users) for view in views)


def _fits(place: fx.Node, value: object) -> bool:
    """Whether a value can stand for the buffer: of its shape and type, or spread and cast to them."""
    if not isinstance(value, fx.Node) or not is_tensor(value) or not all(map(is_static, shape_of(place))):
        return False
    return same_shape(value, place) or all(map(is_static, shape_of(value)))


def _fitted(graph: fx.Graph, place: fx.Node, call: fx.Node) -> fx.Node:
    """What a copy writes, in the shape and type of the buffer."""
    value = call.args[1]
    assert isinstance(value, fx.Node)
    kind = place.meta["val"].dtype
    with graph.inserting_before(call):
        if value.meta["val"].dtype is not kind:
            value = _made(graph, torch.ops.aten.to.dtype, value, kind, call, value.meta["val"].to(kind))
        if not same_shape(value, place):
            sizes = list(shape_of(place))
            value = _made(graph, torch.ops.aten.expand.default, value, sizes, call, value.meta["val"].expand(sizes))
    return value


def _made(graph: fx.Graph, target: OpOverload, value: fx.Node, argument: Any, call: fx.Node, result: Any) -> fx.Node:
    node = graph.call_function(target, (value, argument))
    node.meta = {**call.meta, "val": result}
    return node


def _write(graph: fx.Graph, place: fx.Node, calls: Sequence[fx.Node], order: dict[fx.Node, int]) -> None:
    value = place
    for call in calls:
        position = order[call]
        if call.target is _COPY:
            value = _fitted(graph, place, call)
            order.setdefault(value, position)
            call.replace_all_uses_with(value)
        else:
            call.target = pure_form(call)  # type: ignore[assignment]
            value = in_own_type(graph, call)
            order[value] = position
        place.replace_all_uses_with(value, delete_user_cb=lambda user, after=position: order[user] > after)  # type: ignore[misc]
    with graph.inserting_after(value if order[value] == order[calls[-1]] else calls[-1]):
        written = graph.call_function(_COPY, (place, value))
    written.meta = {**calls[-1].meta, "val": place.meta["val"], STATE: True}
    order[written] = order[calls[-1]]
    for call in calls:
        if call.target is _COPY:
            graph.erase_node(call)
