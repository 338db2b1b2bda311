"""In-place calls as pure ones: ``aten.relu`` for ``aten.relu_``."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor

from .values import is_tensor, same_shape

__all__ = ["in_own_type", "pure_form"]


def pure_form(node: fx.Node) -> torch._ops.OpOverload | None:
    """``aten.relu`` for ``aten.relu_``, and ``__and__`` for ``__iand__``, if there is one with the same arguments."""
    assert isinstance(node.target, torch._ops.OpOverload)
    name = node.target.overloadpacket.__name__
    pure = name.replace("__i", "__", 1) if name.startswith("__i") else name.removesuffix("_")
    packet = getattr(torch.ops.aten, pure, None) if pure != name else None
    overload = getattr(packet, node.target._overloadname, None) if packet is not None else None
    if overload is None or len(overload._schema.arguments) != len(node.target._schema.arguments):
        return None
    return overload if is_tensor(node) and same_shape(node, node.all_input_nodes[0]) else None


def in_own_type(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """The value of a call that was in place, in the type of what it wrote to: ``x.gt_(0)`` leaves floating-point numbers.

    Usually that is the call itself; else a cast behind it.
    """
    written, (args, kwargs) = node.meta["val"], fx.map_arg((node.args, dict(node.kwargs)), lambda n: n.meta["val"])
    with written.fake_mode if isinstance(written, FakeTensor) else nullcontext():
        made = node.target(*args, **kwargs)  # type: ignore[operator]
    if made.dtype is written.dtype:
        return node
    with graph.inserting_after(node):
        cast = graph.call_function(torch.ops.aten.to.dtype, (node, written.dtype))
    cast.meta = copy.copy(node.meta)
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
    node.meta = {**node.meta, "val": made}
    return cast
