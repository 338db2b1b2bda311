"""Writes to buffers: a buffer's channels are those of what is written to it, in this call and in all others."""

from __future__ import annotations

from ..axes import AxesBuilder
from ..facts import Facts, unknown
from ..liveness import KnownConstants, Liveness
from ..values import STATE, Operation, shape_of
from .base import Rule, register

__all__ = ["Write"]


@register
class Write(Rule):
    """The one copy into a buffer that `state_writes` leaves. Channels that are the same constant in the buffer at first and in
    what is written are so in every call (`propagation` finds these), and may go; all others stay, as somebody may look at
    the buffer.

    For example::

        before copy_(seen 2x8x8x8, x 2x8x8x8) -> 2x8x8x8
        after  copy_(seen 2x4x8x8, x 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.copy_",)

    def reason(self, op: Operation) -> str:
        return "" if op.node.meta.get(STATE) else super().reason(op)

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if not op.node.meta.get(STATE):
            return
        for axis in range(len(shape_of(op.node))):
            axes.same((op["self"], axis), (op["src"], axis))
            axes.same((op["self"], axis), (op.node, axis))
            axes.mixes((op["src"], axis), (op["src"], axis))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return facts[op["src"]] if op.node.meta.get(STATE) else unknown(len(shape_of(op.node)))

    def demand(self, op: Operation, live: Liveness) -> None:
        for axis, size in enumerate(shape_of(op.node)):
            _, known = live.facts[op["self"]].plain().along(axis, size)
            live.require(op["self"], axis, ~known, f"kept from call to call in '{op['self'].target}'")
