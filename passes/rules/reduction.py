"""Reductions, softmax and other operators along named axes: the axes they do not work on pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, level, unknown
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, operator_name, shape_of
from .base import Rule, register
from .elementwise import Elementwise, relate_broadcast
from .visible_rows import has_finite_entries

__all__ = ["Accumulated", "AlongAxis", "Average", "AverageOfNumbers", "Extremum", "Record", "Softmax", "Sum"]

_ENTRIES = Elementwise()


def _axes_of(op: Operation) -> list[int]:
    """The axes an operator works on; all of them where it names none."""
    rank = len(shape_of(op.node.all_input_nodes[0]))
    dim = op.get("dim", op.get("axis"))
    if dim is None or dim == []:
        return list(range(rank))
    return sorted({int(axis) % max(1, rank) for axis in ([dim] if isinstance(dim, int) else dim)})


def _keeps_rank(op: Operation) -> bool:
    source = op.node.all_input_nodes[0]
    return len(op.shape) == len(shape_of(source))


class _Reducing(Rule):
    """The reduced axes vanish (or become 1); the others pass."""

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} runs over the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        reduced = _axes_of(op)
        for out in op.outputs:
            if out is None:
                continue
            position = 0
            for axis in range(len(shape_of(source))):
                if axis in reduced:
                    position += _keeps_rank(op)
                    continue
                axes.same((source, axis), (out, position))
                position += 1

    def _shrunk(self, op: Operation, array: Any) -> Any:
        """`array` (facts of the input, reduced axes of extent 1) in the rank of the output."""
        return array if _keeps_rank(op) else array.squeeze(tuple(_axes_of(op)))

    def _uniform(self, op: Operation, facts: KnownConstants) -> Facts:
        """The input's constants where they do not differ along the reduced axes, which get extent 1."""
        given = facts[op.node.all_input_nodes[0]].plain()
        return level(given, tuple(_axes_of(op)) if given.rank else ())


class _Summing(_Reducing):
    """Zeros add nothing, so zero channels may leave the axes that are summed over."""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        super().relate(op, axes)
        source = op.node.all_input_nodes[0]
        if self._leaves(op):
            for axis in _axes_of(op):
                axes.mixes((source, axis), (source, axis))

    def demand(self, op: Operation, live: Liveness) -> None:
        source = op.node.all_input_nodes[0]
        for axis in _axes_of(op):
            size = shape_of(source)[axis]
            if isinstance(size, int):
                value, known = live.facts[source].plain().along(axis, size)
                stays = ~known | ((value != 0) & (not self._adds(op)))
                live.require(source, axis, stays, f"{self._verb} by '{op.node.name}'")

    def _gone(self, op: Operation, edit: Edit) -> float:
        """What the channels that are gone add up to, for operators over a single axis."""
        source = op.node.all_input_nodes[0]
        (axis,) = _axes_of(op)
        kept = edit.kept(source, axis)
        value, known = edit.facts[source].plain().along(axis, kept.size)
        return float(value[known & ~kept].sum())

    _verb: ClassVar[str] = "summed"

    def _leaves(self, op: Operation) -> bool:
        """Returns if zeros may leave."""
        return len(shape_of(op.node.all_input_nodes[0])) > 1

    def _adds(self, op: Operation) -> bool:
        """Returns if what constants add can be added to the result instead."""
        return False


@register
class Average(_Summing):
    """The mean of a constant is that constant.

    Over channels it is the sum divided by their old number: zeros may leave, and constants that leave add a number. So the
    mean of what is left is scaled. This is how RMS normalisation that is spelled out keeps its values.

    For example::

        before mean(x 2x8x8x8) -> scalar
        after  a = mean(x 2x4x8x8) -> scalar
               result = mul(a, 0.5) -> scalar
    """

    operators = ("aten.mean",)
    _verb = "averaged"

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        given = self._uniform(op, facts)
        return collapsed(self._shrunk(op, given.value), self._shrunk(op, given.known))

    def rewrite(self, op: Operation, edit: Edit) -> None:
        source, reduced = op.node.all_input_nodes[0], _axes_of(op)
        share, before = 1.0, 1
        for axis in reduced if self._leaves(op) else ():
            if is_static(shape_of(source)[axis]):
                kept = edit.kept(source, axis)
                share, before = share * float(kept.mean()), before * kept.size
        if share == 1:
            return
        gone = self._gone(op, edit) / before if self._adds(op) else 0.0
        factor = _factor_after(op)
        if factor is not None and not gone:  # Of an earlier round.
            edit.set_argument(factor, "other", factor["other"] * share)
            return
        mean = edit.insert(op, op.node.target, tuple(op.node.args))
        mean.kwargs = dict(op.node.kwargs)
        if gone:
            mean = edit.insert(op, torch.ops.aten.mul.Tensor, (mean, share))
            edit.set_call(op, torch.ops.aten.add.Tensor, (mean, gone))
        else:
            edit.set_call(op, torch.ops.aten.mul.Tensor, (mean, share))

    def _adds(self, op: Operation) -> bool:
        return len(_axes_of(op)) == 1


def _factor_after(op: Operation) -> Operation | None:
    """The multiplication by a number that alone reads a result."""
    readers = list(op.node.users)
    if len(readers) != 1 or operator_name(readers[0]) != "aten.mul":
        return None
    reader = Operation(readers[0], op.module)
    return reader if isinstance(reader["other"], float) else None


@register
class AverageOfNumbers(_Reducing):
    """``nanmean`` divides by how many entries are numbers, which nobody knows before.

    For example::

        before nanmean(x 2x8x8x8, [2, 3]) -> 2x8
        after  nanmean(x 2x4x8x8, [2, 3]) -> 2x4
    """

    operators = ("aten.nanmean",)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        given = self._uniform(op, facts)
        return collapsed(self._shrunk(op, given.value), self._shrunk(op, given.known))


@register
class Extremum(_Reducing):
    """Largest and smallest entry: of a constant, the constant; where an index comes along, nothing is claimed of it.

    ``max`` and ``min`` of two tensors work entry by entry.

    For example::

        before amax(x 2x8x8x8, [2, 3]) -> 2x8
        after  amax(x 2x4x8x8, [2, 3]) -> 2x4
    """

    operators = ("aten.amax", "aten.amin", "aten.max", "aten.min", "aten.argmax", "aten.argmin", "aten.any", "aten.all")

    def reason(self, op: Operation) -> str:
        return "" if "other" in op.arguments else super().reason(op)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        if "other" in op.arguments:
            return _ENTRIES.constants(op, facts)
        if op.name not in ("aten.amax", "aten.amin", "aten.max", "aten.min"):
            return super().constants(op, facts)
        given = self._uniform(op, facts)
        found = collapsed(self._shrunk(op, given.value), self._shrunk(op, given.known))
        return [found, *(unknown(found.rank) for _ in op.outputs[1:])]

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if "other" in op.arguments:
            relate_broadcast(op, axes)
        else:
            super().relate(op, axes)


@register
class Sum(_Summing):
    """Sums and norms: zero channels may leave the summed axis.

    For example::

        before sum(x 2x8x8x8, [1], True) -> 2x1x8x8
        after  sum(x 2x4x8x8, [1], True) -> 2x1x8x8
    """

    operators = ("aten.sum", "aten.linalg_vector_norm", "aten.norm", "aten.nansum")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = self._uniform(op, facts)
        zero = given.known & (given.value == 0)
        return collapsed(self._shrunk(op, np.zeros_like(given.value)), self._shrunk(op, zero))

    def _leaves(self, op: Operation) -> bool:
        order = op.get("ord", op.get("p", 1))
        return super()._leaves(op) and (order is None or (isinstance(order, int | float) and order > 0))


@register
class AlongAxis(_Reducing):
    """Statistics and scans that need every entry along their axis.

    For example::

        before var(x 2x8x8x8, [2, 3], True, True) -> 2x8x1x1
        after  the same
    """

    operators = ("aten.var", "aten.std", "aten.prod", "aten.logsumexp", "aten.var_mean", "aten.std_mean")


class _Scanning(Rule):
    """Every entry along one axis may depend on all others there: that axis stays whole, the others pass."""

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} runs over the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        rank = len(op.shape)
        dim = op["dim"] % max(1, rank)
        for out in filter(None, op.outputs):
            axes.pass_through(source, out, ((axis, axis) for axis in range(rank) if axis != dim))

    def _level(self, op: Operation, facts: KnownConstants) -> Facts:
        """The input's constants, if they do not differ along the axis."""
        given = facts[op.node.all_input_nodes[0]].plain()
        return unknown(given.rank) if given.rank and given.known.shape[op["dim"] % given.rank] > 1 else given


@register
class Accumulated(_Scanning):
    """``cumsum``, ``cumprod``, ``logcumsumexp``: sums and products of nothing but zeros are zero.

    For example::

        before cumsum(x 2x8x8x8, 3) -> 2x8x8x8
        after  cumsum(x 2x4x8x8, 3) -> 2x4x8x8
    """

    operators = ("aten.cumsum", "aten.cumprod", "aten.logcumsumexp")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = self._level(op, facts)
        if op.name == "aten.logcumsumexp":
            return unknown(given.rank)
        return collapsed(given.value, given.known & (given.value == 0))


@register
class Record(_Scanning):
    """``cummax`` and ``cummin``: of a constant, that constant; nothing is claimed of where it was found.

    For example::

        before cummax(x 2x8x8x8, 3) -> 2x8x8x8, 2x8x8x8
        after  cummax(x 2x4x8x8, 3) -> 2x4x8x8, 2x8x8x8
    """

    operators = ("aten.cummax", "aten.cummin")

    def constants(self, op: Operation, facts: KnownConstants) -> Sequence[Facts]:
        given = self._level(op, facts)
        return [given, unknown(given.rank)]


@register
class Softmax(_Scanning):
    """``softmax``: the axis stays whole, the others pass; along its axis the result sums to one, unless a mask may have
    hidden all of a row.

    For example::

        before softmax(x 2x8x8x8, 3) -> 2x8x8x8
        after  the same
    """

    operators = ("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax")

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        nothing = unknown(rank)
        dim = op["dim"] % max(1, rank)
        source = op.node.all_input_nodes[0]
        if op.name not in ("aten.softmax", "aten._softmax"):
            return nothing
        sound = facts.ranges[source].finite or (dim == rank - 1 and has_finite_entries(source, facts))
        return replace(nothing, stochastic=dim) if sound else nothing
