"""``embedding`` and ``embedding_bag``: rows of a table, one by one or in bags; its columns are channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, shape_of
from .base import Rule, register

__all__ = ["Embedding", "EmbeddingBag"]


@register
class Embedding(Rule):
    """A column with the same number in every row is a constant channel.

    For example::

        before embedding(weight 11x8, x 2x5) -> 2x5x8
        after  embedding(weight 11x4, x 2x5) -> 2x5x4
    """

    operators = ("aten.embedding",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        rank = len(shape_of(op.node))
        axes.pass_through(op["indices"], op.node, ((axis, axis) for axis in range(rank - 1)))
        axes.same((op["weight"], 1), (op.node, rank - 1))
        axes.producer(op["weight"], 1)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        value, known = _columns(op, facts)
        shape = (1,) * (len(shape_of(op.node)) - 1) + value.shape
        return collapsed(value.reshape(shape), known.reshape(shape))


@register
class EmbeddingBag(Rule):
    """Sums, means and maxima of bags of rows: a table of columns ``(a, 0, b)`` without the zeros gives bags of ``(a, b)``.

    An empty bag, or one that holds padding alone, gives zeros; so only a column of zeros is a constant.

    For example::

        before embedding_bag(weight 11x8, x 10, y 2, False, 0, False, None, False, None) -> 2x8, 10, 2, 2
        after  embedding_bag(weight 11x4, x 10, y 2, False, 0, False, None, False, None) -> 2x4, 10, 2, 2
    """

    operators = ("aten.embedding_bag",)

    def reason(self, op: Operation) -> str:
        return "what embedding_bag says of its bags is read" if any(op.outputs[1:]) else ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        found, *others = op.outputs
        if found is not None and not any(others):  # The places of maxima have columns too.
            axes.same((op["weight"], 1), (found, 1))
            axes.producer(op["weight"], 1)

    def constants(self, op: Operation, facts: KnownConstants) -> Sequence[Facts]:
        scale, found = op.get("per_sample_weights"), unknown(2)
        if scale is None or facts.ranges[scale].finite:
            value, known = _columns(op, facts)
            found = collapsed(value[None], known[None] & (value[None] == 0))
        return [found, *(unknown(len(out.shape)) for out in op.node.meta["val"][1:])]


def _columns(op: Operation, facts: KnownConstants) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Of every column of the table, which may be computed: the number in it, and whether that is the same in all rows."""
    table = op.tensor("weight")
    if table is None or not table.shape[0] or table.is_complex():
        return facts[op["weight"]].plain().along(1, shape_of(op["weight"])[1])
    low, high = torch.aminmax(table, dim=0)
    return low.double().cpu().numpy(), (low == high).cpu().numpy()
