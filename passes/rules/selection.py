"""Operators that pick positions of an axis: slices, index maps, repetition, flips, rolls."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, is_unit, shape_of
from .base import Rule, register
from .indexing import indexed_by
from .joining import taken

__all__ = ["IndexSelect", "Repeat", "Roll", "Select", "Slice", "TakeRows"]

Index = NDArray[np.int64]


class _Picked(Rule):
    """Result position i along one axis is source position ``index[i]``."""

    def reason(self, op: Operation) -> str:
        return ""

    def axis(self, op: Operation) -> int:
        """The axis positions are picked from."""
        return int(op["dim"]) % len(shape_of(op.node))

    def index(self, op: Operation) -> Index | None:
        """The source position of every result position, or None where a size is dynamic."""
        raise NotImplementedError

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        dim, index = self.axis(op), self.index(op)
        rank = len(shape_of(out))
        axes.pass_through(source, out, ((axis, axis) for axis in range(rank) if axis != dim))
        if index is not None:
            if len(index) == shape_of(source)[dim] and (index == np.arange(len(index))).all():
                axes.same((source, dim), (out, dim))
            else:
                axes.gather((source, dim), (out, dim), index, np.arange(len(index)))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]]
        dim, index = self.axis(op), self.index(op)
        if given.known.shape[dim] == 1:
            picked = given
        elif index is None:
            return unknown(given.rank)
        else:
            picked = collapsed(given.value.take(index, dim), given.known.take(index, dim), given.pattern)
        return picked.cut(op.node.name)

    def rewrite(self, op: Operation, edit: Edit) -> None:
        source = op.node.all_input_nodes[0]
        dim, index = self.axis(op), self.index(op)
        if index is None:
            return
        kept_source, kept = edit.kept(source, dim), edit.kept(op.node, dim)
        if not (kept_source.all() and kept.all()):
            new_index = (np.cumsum(kept_source) - 1)[index[kept]]
            self.emit(op, edit, dim, new_index, int(kept_source.sum()))

    def emit(self, op: Operation, edit: Edit, dim: int, index: Index, size: int) -> None:
        """Writes the call that picks `index` from the `size` positions that are left."""
        source = edit.new(op.node.all_input_nodes[0])
        if len(index) == size and (index == np.arange(size)).all():
            edit.set_call(op, torch.ops.aten.alias.default, (source,))
        elif (np.diff(index) == 1).all():
            first = int(index[0]) if len(index) else 0
            edit.set_call(op, torch.ops.aten.slice.Tensor, (source, dim, first, first + len(index)))
        else:
            table = edit.add_buffer(op, f"{op.node.name}_index", torch.from_numpy(index.copy()))
            edit.set_call(op, torch.ops.aten.index_select.default, (source, dim, table))


@register
class Slice(_Picked):
    """``slice`` and ``narrow``.

    For example::

        before slice(x 2x8x8x8, 1, 0, 4) -> 2x4x8x8
        after  slice(x 2x4x8x8, 1, 0, 2) -> 2x2x8x8
    """

    operators = ("aten.slice", "aten.narrow")

    def index(self, op: Operation) -> Index | None:
        size = shape_of(op.node.all_input_nodes[0])[self.axis(op)]
        if not is_static(size):
            return None
        if op.name == "aten.narrow":
            bounds: tuple[Any, ...] = (
                op["start"],
                None if isinstance(op["start"], fx.Node) else op["start"] + op["length"],
                1,
            )
        else:
            bounds = (op.get("start"), op.get("end"), op.get("step", 1))
        if any(isinstance(bound, fx.Node | torch.SymInt) for bound in bounds):
            return None
        return np.arange(size)[slice(*bounds)]

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, dim = op.node.all_input_nodes[0], self.axis(op)
        size, taken_size = shape_of(source)[dim], shape_of(op.node)[dim]
        if not is_static(size) and str(size) == str(taken_size):
            axes.same((source, dim), (op.node, dim))
        super().relate(op, axes)


@register
class IndexSelect(_Picked):
    """``index_select`` by a stored index: permutations and channel shuffles.

    For example::

        before index_select(x 2x8x8x8, 1, table 8) -> 2x8x8x8
        after  index_select(x 2x4x8x8, 1, index_select_index 4) -> 2x4x8x8
    """

    operators = ("aten.index_select",)

    def index(self, op: Operation) -> Index | None:
        index = op.tensor("index")
        return None if index is None else index.cpu().numpy().astype(np.int64)


@register
class Roll(_Picked):
    """``roll`` and ``flip``: the axes they name stay whole, the others pass.

    For example::

        before roll(x 2x8x8x8, [3], [2]) -> 2x8x8x8
        after  roll(x 2x4x8x8, [3], [2]) -> 2x4x8x8
    """

    operators = ("aten.roll", "aten.flip")

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        rank = len(shape_of(op.node))
        moved = self._moved(op)
        axes.pass_through(op.node.all_input_nodes[0], op.node, ((a, a) for a in range(rank) if a not in moved))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        return unknown(given.rank) if any(given.known.shape[axis] > 1 for axis in self._moved(op)) else given

    def rewrite(self, op: Operation, edit: Edit) -> None:
        return

    def _moved(self, op: Operation) -> set[int]:
        rank = len(shape_of(op.node))
        return {int(axis) % rank for axis in op["dims"]} if op["dims"] else set(range(rank))


@register
class Repeat(Rule):
    """``repeat`` and ``repeat_interleave``: copies of a channel stay or go with it, all of them.

    For example::

        before repeat(x 2x8x8x8, [1, 2, 1, 1]) -> 2x16x8x8
        after  repeat(x 2x4x8x8, [1, 2, 1, 1]) -> 2x8x8x8
    """

    operators = ("aten.repeat", "aten.tile", "aten.repeat_interleave")

    def reason(self, op: Operation) -> str:
        return ""

    def _index(self, op: Operation, axis: int) -> Index | None:
        """The source position of every result position along an axis of the result."""
        source = op.node.all_input_nodes[0]
        offset = len(shape_of(op.node)) - len(shape_of(source))
        size, out = (shape_of(source)[axis - offset] if axis >= offset else 1), shape_of(op.node)[axis]
        if not is_static(size) or not is_static(out) or not size:
            return None
        if op.name == "aten.repeat_interleave":
            return np.repeat(np.arange(size), out // size)
        return np.tile(np.arange(size), out // size)

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        if op.name == "aten.repeat_interleave" and (op.get("dim") is None or not isinstance(op.get("repeats"), int)):
            return
        offset = len(shape_of(out)) - len(shape_of(source))
        for axis, size in enumerate(shape_of(source)):
            if str(size) == str(shape_of(out)[axis + offset]):
                axes.same((source, axis), (out, axis + offset))
                continue
            index = self._index(op, axis + offset)
            if index is not None and not is_unit(size):
                axes.gather((source, axis), (out, axis + offset), index, np.arange(len(index)))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        rank = len(shape_of(op.node))
        if op.name == "aten.repeat_interleave" and (op.get("dim") is None or not isinstance(op.get("repeats"), int)):
            return unknown(rank)
        value = given.value.reshape((1,) * (rank - given.rank) + given.value.shape)
        known = given.known.reshape(value.shape)
        for axis in range(rank):
            if known.shape[axis] > 1:
                index = self._index(op, axis)
                if index is None:
                    return unknown(rank)
                value, known = value.take(index, axis), known.take(index, axis)
        return collapsed(value, known)


@register
class Select(Rule):
    """``select``: one position of an axis, which vanishes.

    For example::

        before select(x 2x8x8x8, 2, 3) -> 2x8x8
        after  select(x 2x4x8x8, 2, 3) -> 2x4x8
    """

    operators = ("aten.select",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        dim = op["dim"] % len(shape_of(source))
        places = [axis for axis in range(len(shape_of(source))) if axis != dim]
        axes.pass_through(source, out, ((axis, place) for place, axis in enumerate(places)))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        dim = op["dim"] % given.rank
        if given.known.shape[dim] > 1 and not isinstance(op["index"], int):
            return unknown(given.rank - 1)
        return taken(given, dim, op["index"])


@register
class TakeRows(Rule):
    """``index``: rows of a table by position (position biases), or where a mask is true. The axes that are not indexed pass.

    For example::

        before index(table 7x8, [rows 5]) -> 5x8
        after  index(table 7x4, [rows 5]) -> 5x4
    """

    operators = ("aten.index",)

    def reason(self, op: Operation) -> str:
        return "index reads at places of the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        order = indexed_by(op).order
        axes.pass_through(op["self"], op.node, ((axis, place) for place, axis in enumerate(order) if axis is not None))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        """What does not differ along the indexed axes is the same whichever rows are taken."""
        given, indexed = facts[op["self"]].plain(), indexed_by(op)
        if any(given.known.shape[axis] != 1 for axis in indexed.axes):
            return unknown(len(indexed.order))
        rest = [axis for axis in indexed.order if axis is not None]
        shape = [1 if axis is None else given.known.shape[axis] for axis in indexed.order]
        moved = (*rest, *indexed.axes)
        return collapsed(given.value.transpose(moved).reshape(shape), given.known.transpose(moved).reshape(shape))
