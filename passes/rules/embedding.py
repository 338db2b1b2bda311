"""``embedding``: rows of a table; its columns are channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..facts import Facts, collapsed, unknown
from ..values import Operation, shape_of
from .base import FactTable, Rule, register

if TYPE_CHECKING:
    from ..axes import AxesBuilder

__all__ = ["Embedding"]


@register
class Embedding(Rule):
    """A column with the same number in every row is a constant channel."""

    operators = ("aten.embedding",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        rank = len(shape_of(op.node))
        axes.pass_through(op["indices"], op.node, ((axis, axis) for axis in range(rank - 1)))
        axes.same((op["weight"], 1), (op.node, rank - 1))
        axes.producer(op["weight"], 1)

    def constants(self, op: Operation, facts: FactTable) -> Facts:
        rank = len(shape_of(op.node))
        table = op.tensor("weight")
        if table is None:
            return unknown(rank)
        low, high = torch.aminmax(table, dim=0)
        shape = (1,) * (rank - 1) + (table.shape[1],)
        return collapsed(low.double().cpu().numpy().reshape(shape), (low == high).cpu().numpy().reshape(shape))
