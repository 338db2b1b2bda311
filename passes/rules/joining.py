"""Concatenation and its inverses: ranges of one axis are whole axes of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of
from .base import Rule, register

__all__ = ["Concatenate", "Split", "Stack", "Unbind"]


@register
class Concatenate(Rule):
    """``cat``: the operands' axes one after another.

    For example::

        before cat([x 2x8x8x8, y 2x8x8x8], 1) -> 2x16x8x8
        after  cat([x 2x4x8x8, y 2x4x8x8], 1) -> 2x8x8x8
    """

    operators = ("aten.cat", "aten.concat", "aten.concatenate")

    def reason(self, op: Operation) -> str:
        return ""

    def _dim(self, op: Operation) -> int:
        return int(op["dim"]) % len(shape_of(op.node))

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        dim, out = self._dim(op), op.node
        operands = [node for node in op["tensors"] if len(shape_of(node)) == len(shape_of(out))]  # But for empty ones.
        for operand in operands:
            axes.pass_through(operand, out, ((axis, axis) for axis in range(len(shape_of(out))) if axis != dim))
        start = 0
        for operand in operands:
            size = shape_of(operand)[dim]
            if not is_static(size) or not is_static(shape_of(out)[dim]):
                return  # The axis stays whole, in every operand.
            axes.gather((operand, dim), (out, dim), np.arange(size), np.arange(start, start + size))
            start += size

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        dim, rank = self._dim(op), len(shape_of(op.node))
        operands = [node for node in op["tensors"] if len(shape_of(node)) == rank]
        given = [facts[node] for node in operands]
        patterns = {fact.pattern for fact in given if (fact.known & (fact.value != 0)).any()}
        if len(patterns) > 1:
            given = [fact.plain() for fact in given]
            patterns = set()
        sizes = [shape_of(node)[dim] for node in operands]
        if all(fact.nothing for fact in given):
            return unknown(rank)
        if not all(is_static(size) for size in sizes):
            return _common([fact.plain() for fact in given], dim)
        extents = [max(fact.known.shape[axis] for fact in given) for axis in range(rank)]
        spread = [tuple(size if axis == dim else extents[axis] for axis in range(rank)) for size in sizes]
        value = np.concatenate(
            [np.broadcast_to(fact.value, shape) for fact, shape in zip(given, spread, strict=True)], dim
        )
        known = np.concatenate(
            [np.broadcast_to(fact.known, shape) for fact, shape in zip(given, spread, strict=True)], dim
        )
        return collapsed(value, known, next(iter(patterns), None)).cut(op.node.name)


def _common(given: Sequence[Facts], dim: int) -> Facts:
    """What all operands have in common along an axis of which not all sizes are known."""
    if any(fact.known.shape[dim] != 1 for fact in given):
        return unknown(given[0].rank)
    value, known = given[0].value, given[0].known
    for fact in given[1:]:
        known = known & fact.known & (fact.value == value)
    return collapsed(np.broadcast_to(value, known.shape), known)


@register
class Stack(Rule):
    """``stack``: a new axis; all others are the same in every operand.

    For example::

        before stack([x 2x8x8x8, y 2x8x8x8], 2) -> 2x8x2x8x8
        after  stack([x 2x4x8x8, y 2x4x8x8], 2) -> 2x4x2x8x8
    """

    operators = ("aten.stack",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        rank = len(shape_of(op.node))
        dim = op["dim"] % rank
        places = [axis for axis in range(rank) if axis != dim]
        for operand in op["tensors"]:
            axes.pass_through(operand, op.node, enumerate(places))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        dim = op["dim"] % rank
        given = [facts[node].plain() for node in op["tensors"]]
        shape = np.broadcast_shapes(*(fact.known.shape for fact in given))
        value = np.stack([np.broadcast_to(fact.value, shape) for fact in given], dim)
        known = np.stack([np.broadcast_to(fact.known, shape) for fact in given], dim)
        return collapsed(value, known)


class _Ranges(Rule):
    """Every result is a range of the source's axis."""

    def reason(self, op: Operation) -> str:
        return ""

    def ranges(self, op: Operation) -> tuple[int, list[tuple[int, int]]] | None:
        """The axis and the start and end of every result on it; None if a size is dynamic."""
        source = op.node.all_input_nodes[0]
        dim = int(op["dim"]) % len(shape_of(source))
        sizes = [out.shape[dim] for out in op.node.meta["val"]]
        if not all(is_static(size) for size in sizes):
            return None
        ends = np.cumsum(sizes).tolist()
        return dim, list(zip([0, *ends[:-1]], ends, strict=True))

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        rank = len(shape_of(source))
        dim = int(op["dim"]) % rank
        for out in op.outputs:
            if out is not None:
                axes.pass_through(source, out, ((axis, axis) for axis in range(rank) if axis != dim))
        found = self.ranges(op)
        if found is None:
            return  # An axis of dynamic size stays whole.
        axes.touch((source, dim))
        for out, (start, end) in zip(op.outputs, found[1], strict=True):
            if out is not None:
                axes.gather((source, dim), (out, dim), np.arange(start, end), np.arange(end - start))

    def constants(self, op: Operation, facts: KnownConstants) -> Sequence[Facts]:
        given = facts[op.node.all_input_nodes[0]]
        dim = int(op["dim"]) % given.rank
        found = self.ranges(op)
        if given.known.shape[dim] == 1:
            parts = [given for _ in op.outputs]
        elif found is None:
            return [unknown(given.rank) for _ in op.outputs]
        else:
            cuts = [(slice(None),) * dim + (slice(start, end),) for start, end in found[1]]
            parts = [collapsed(given.value[cut], given.known[cut], given.pattern) for cut in cuts]
        return [part.cut(f"{op.node.name}_{place}") for place, part in enumerate(parts)]


@register
class Split(_Ranges):
    """``split``, ``split_with_sizes``, ``chunk``: the sizes that are left are written out.

    For example::

        before split(x 2x8x8x8, 3, 1) -> 2x3x8x8, 2x3x8x8, 2x2x8x8
        after  split_with_sizes(x 2x5x8x8, [2, 2, 1], 1) -> 2x2x8x8, 2x2x8x8, 2x1x8x8
    """

    operators = ("aten.split", "aten.split_with_sizes", "aten.chunk", "aten.tensor_split")

    def rewrite(self, op: Operation, edit: Edit) -> None:
        found = self.ranges(op)
        if found is None:
            return
        dim, ranges = found
        source = op.node.all_input_nodes[0]
        kept = edit.kept(source, dim)
        if kept.all():
            return
        sizes = []
        for out, (start, end) in zip(op.outputs, ranges, strict=True):
            sizes.append(int((edit.kept(out, dim) if out is not None else kept[start:end]).sum()))
        edit.set_call(op, torch.ops.aten.split_with_sizes.default, (edit.new(source), sizes, dim))


@register
class Unbind(Rule):
    """``unbind``: one result for every position of an axis, which stays whole.

    For example::

        before unbind(x 2x2x4x8x8, 1) -> 2x4x8x8, 2x4x8x8
        after  unbind(x 2x2x2x8x8, 1) -> 2x4x8x8, 2x2x8x8
    """

    operators = ("aten.unbind",)

    def reason(self, op: Operation) -> str:
        return "unbind takes the channel axis apart"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        rank = len(shape_of(source))
        dim = op["dim"] % rank
        for out in op.outputs:
            if out is not None:
                places = [axis for axis in range(rank) if axis != dim]
                axes.pass_through(source, out, ((axis, place) for place, axis in enumerate(places)))

    def constants(self, op: Operation, facts: KnownConstants) -> Sequence[Facts]:
        given = facts[op.node.all_input_nodes[0]].plain()
        dim = op["dim"] % given.rank
        return [taken(given, dim, index) for index in range(len(op.outputs))]


def taken(given: Facts, dim: int, index: Any) -> Facts:
    """Facts of one position of an axis, which vanishes."""
    place = 0 if given.known.shape[dim] == 1 else index
    return collapsed(given.value.take(place, dim), given.known.take(place, dim))
