"""Operators that only arrange: reshape and its relatives, permutations, unit axes. Literal sizes are rewritten.

A reshape is read through the common refinement of its two shapes: ``(N, 64) -> (N, 8, 8)`` has the factors N, 8, 8, and
the flat axis is the product of the last two. What is kept of a flat axis must be such a product again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..factors import Factors, listed, permutation_of, refine
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, is_tensor, is_unit, shape_of
from .base import Rule, register

__all__ = ["MERGED", "Expand", "Permute", "Reshape", "UnitAxes"]


MERGED = "the channels are merged with an axis of dynamic size"
"""Why a reshape holds channels that it would not hold if all sizes were numbers."""


@register
class Reshape(Rule):
    """``view``, ``reshape``, ``flatten``, ``unflatten`` and the unit-axis operators.

    For example::

        before reshape(x 2x8x8x8, [2, 512]) -> 2x512
        after  reshape(x 2x4x8x8, [2, 256]) -> 2x256
    """

    operators = tuple(
        f"aten.{name}"
        for name in "view reshape _unsafe_view view_as reshape_as flatten unflatten _reshape_alias".split()
    )

    def reason(self, op: Operation) -> str:
        source = op.node.all_input_nodes[0]
        if _reads_bits(op):
            return "view reads the bits of one type as another"
        if refine(shape_of(source), op.shape) is None:
            return f"{op.name.removeprefix('aten.')} cuts across the channel axis"
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        factors = refine(shape_of(source), shape_of(out))
        if factors is None or _reads_bits(op):
            return
        for other in filter(is_tensor, op.node.all_input_nodes[1:]):  # ``view_as``: only the other's shape is read.
            axes.pass_through(other, out, ((axis, axis) for axis in range(len(shape_of(out)))))
        owner = {number: axis for axis, part in enumerate(factors.source) for number in part}
        mirror = {number: axis for axis, part in enumerate(factors.target) for number in part}
        sides = ((source, factors.source), (out, factors.target))
        known = [
            is_static(shape_of(source)[owner[number]]) or is_static(shape_of(out)[mirror[number]])
            for number in range(len(factors.sizes))
        ]  # A symbol stands in the factors as a large prime, which is no size to make an axis of.
        hidden = {
            number: axes.hidden(number, size if known[number] else None)
            for number, size in enumerate(factors.sizes)
            if len(factors.source[owner[number]]) > 1 or len(factors.target[mirror[number]]) > 1
        }
        for number in range(len(factors.sizes)):
            if number not in hidden:
                axes.same((source, owner[number]), (out, mirror[number]))
        for value, parts in sides:
            for axis, part in enumerate(parts):
                self._relate_axis(axes, (value, axis), part, factors, hidden)

    def _relate_axis(
        self,
        axes: AxesBuilder,
        axis: tuple[fx.Node, int],
        part: tuple[int, ...],
        factors: Factors,
        hidden: dict[int, Any],
    ) -> None:
        if not part or part[0] not in hidden:
            axes.touch(axis)
        elif not is_static(shape_of(axis[0])[axis[1]]):
            for number in part:
                axes.freeze(hidden[number], MERGED)
            axes.touch(axis)
        elif len(part) == 1:
            axes.same(axis, hidden[part[0]])
        else:
            axes.product(axis, [hidden[number] for number in part], [factors.sizes[number] for number in part])

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        source, target = shape_of(op.node.all_input_nodes[0]), shape_of(op.node)
        factors = refine(source, target)
        if given.nothing or factors is None or _reads_bits(op):
            return unknown(len(target))
        return _reshaped(given, source, factors) or unknown(len(target))

    def rewrite(self, op: Operation, edit: Edit) -> None:
        name = next((name for name in ("size", "shape", "sizes") if name in op.arguments), None)
        if name is None:
            return
        sizes = list(op[name])
        first = op["dim"] % len(shape_of(op.node.all_input_nodes[0])) if op.name == "aten.unflatten" else 0
        for place, size in enumerate(sizes):
            if is_static(size) and size != -1 and is_static(shape_of(op.node)[first + place]):
                sizes[place] = int(edit.kept(op.node, first + place).sum())
        if "stride" in op.arguments:  # Strides written out describe the old sizes.
            edit.set_call(op, torch.ops.aten.reshape.default, (edit.new(op.node.all_input_nodes[0]), sizes))
        else:
            edit.set_argument(op, name, sizes)


def _reads_bits(op: Operation) -> bool:
    """``view`` with a type: the same bytes, other numbers."""
    return "dtype" in op.arguments


def _reshaped(given: Facts, source: tuple[Any, ...], factors: Factors) -> Facts | None:
    """Facts of a reshaped tensor: axes along which something differs are spelled out, the others stay 1."""
    differing = {a for a in range(given.rank) if given.known.shape[a] > 1}
    fine: list[int] = []
    for axis, part in enumerate(factors.source):
        fine.extend(factors.sizes[number] if axis in differing else 1 for number in part)
    spread: list[tuple[int, int]] = []  # position of a factor, and its size, that must be spelled out
    result: list[int] = []
    for part in factors.target:
        varies = any(fine[number] > 1 for number in part)
        if varies:
            spread.extend((number, factors.sizes[number]) for number in part if fine[number] == 1)
        result.append(int(np.prod([factors.sizes[number] for number in part])) if varies else 1)
    if any(size > 1_000_000 for _, size in spread) or np.prod(result) > 1 << 24:
        return None
    full = [size for size in fine]
    for number, size in spread:
        full[number] = size
    value = np.broadcast_to(given.value.reshape(fine), full).reshape(result)
    known = np.broadcast_to(given.known.reshape(fine), full).reshape(result)
    return collapsed(value, known)


class _Arranged(Rule):
    """Axes keep their entries and change their places."""

    def reason(self, op: Operation) -> str:
        return ""

    def order(self, op: Operation) -> list[int | None]:
        """For every axis of the result, the axis it comes from; None for a new axis of size 1."""
        raise NotImplementedError

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        pairs = [(axis, place) for place, axis in enumerate(self.order(op)) if axis is not None]
        axes.pass_through(source, op.node, pairs)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]]
        order = self.order(op)
        if given.pattern is not None and [axis for axis in order if axis is not None] != list(range(given.rank)):
            given = given.plain()
        dropped = [axis for axis in range(given.rank) if axis not in order]
        present = [axis for axis in order if axis is not None]
        places = [place for place, axis in enumerate(order) if axis is None]
        shape = [given.known.shape[axis] for axis in present]
        value = np.expand_dims(given.value.transpose(present + dropped).reshape(shape), places)
        known = np.expand_dims(given.known.transpose(present + dropped).reshape(shape), places)
        stochastic = order.index(given.stochastic) if given.stochastic in present else None
        return collapsed(value, known, given.pattern, stochastic)


@register
class Permute(_Arranged):
    """``permute``, ``transpose`` and their relatives.

    For example::

        before permute(x 2x8x8x8, [0, 2, 3, 1]) -> 2x8x8x8
        after  permute(x 2x4x8x8, [0, 2, 3, 1]) -> 2x8x8x4
    """

    operators = tuple(
        f"aten.{name}"
        for name in "permute transpose swapaxes swapdims movedim moveaxis t mT mH numpy_T adjoint".split()
    )

    def order(self, op: Operation) -> list[int | None]:
        return list(permutation_of(op))


@register
class UnitAxes(_Arranged):
    """``squeeze`` and ``unsqueeze``: axes of size 1 come and go.

    For example::

        before squeeze(x 2x8x1x1) -> 2x8
        after  squeeze(x 2x4x1x1) -> 2x4
    """

    operators = ("aten.squeeze", "aten.unsqueeze")

    def order(self, op: Operation) -> list[int | None]:
        source = shape_of(op.node.all_input_nodes[0])
        if op.name == "aten.unsqueeze":
            place = op["dim"] % (len(source) + 1)
            order: list[int | None] = list(range(len(source)))
            order.insert(place, None)
            return order
        dim = op.get("dim")
        chosen = range(len(source)) if dim is None else [axis % len(source) for axis in listed(dim)]
        return [axis for axis, size in enumerate(source) if not (axis in chosen and is_unit(size))]

    def rewrite(self, op: Operation, edit: Edit) -> None:
        """Names the axes that vanish where another one has one position left, which would vanish with them."""
        source = op.node.all_input_nodes[0]
        if op.name == "aten.unsqueeze":
            return
        stays = self.order(op)
        sizes = shape_of(source)
        narrow = (axis for axis in stays if axis is not None and is_static(sizes[axis]) and sizes[axis] > 1)
        if all(edit.kept(source, axis).sum() > 1 for axis in narrow):
            return
        vanish = [axis for axis in range(len(sizes)) if axis not in stays]
        if vanish:
            edit.set_call(op, torch.ops.aten.squeeze.dims, (source, vanish))
        else:
            edit.set_call(op, torch.ops.aten.alias.default, (source,))


@register
class Expand(Rule):
    """``expand``: axes of size 1 are spread; the others pass.

    For example::

        before expand(x 2x8x1x1, [2, 8, 8, 8]) -> 2x8x8x8
        after  expand(x 2x4x1x1, [2, 4, 8, 8]) -> 2x4x8x8
    """

    operators = ("aten.expand", "aten.expand_as", "aten.broadcast_to")

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        offset = len(shape_of(out)) - len(shape_of(source))
        for axis, size in enumerate(shape_of(source)):
            if is_unit(size) and not is_unit(shape_of(out)[axis + offset]):
                axes.touch((source, axis))
            else:
                axes.same((source, axis), (out, axis + offset))
        axes.touch(*((out, axis) for axis in range(len(shape_of(out)))))  # A copy may go where nobody reads it.
        if len(op.node.all_input_nodes) == 2 and op.name == "aten.expand_as":
            other = op.node.all_input_nodes[1]
            axes.pass_through(other, out, ((axis, axis) for axis in range(len(shape_of(out)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]].plain()
        shape = (1,) * (len(shape_of(op.node)) - given.rank) + given.known.shape
        return collapsed(given.value.reshape(shape), given.known.reshape(shape))

    def rewrite(self, op: Operation, edit: Edit) -> None:
        if "size" not in op.arguments:
            return
        sizes = list(op["size"])
        for place, size in enumerate(sizes):
            if is_static(size) and size != -1 and is_static(shape_of(op.node)[place]):
                sizes[place] = int(edit.kept(op.node, place).sum())
        edit.set_argument(op, "size", sizes)
