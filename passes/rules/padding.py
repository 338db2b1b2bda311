"""``pad``: around the image (constants become multiples of a padded plane) or along the channel axis (new constants)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of
from .base import Rule, register

__all__ = ["Border", "Pad", "border_of"]


@dataclass(frozen=True, eq=False)
class Border:
    """What constant padding puts around a value: how much before and after each of its axes, and which number."""

    inside: fx.Node
    amounts: tuple[tuple[int, int], ...]
    fill: float


def border_of(op: Operation) -> Border | None:
    """The border that a call adds; None where it crops, is of dynamic width, or is no constant."""
    if op.name not in Pad.operators or _mode(op) != "constant":
        return None
    amounts = _amounts(op)
    if not all(is_static(amount) and amount >= 0 for pair in amounts for amount in pair):
        return None
    return Border(op.node.all_input_nodes[0], tuple(amounts), _fill(op))


@register
class Pad(Rule):
    """Constant, reflecting, replicating and circular padding; negative amounts crop.

    For example::

        before pad(x 2x8x8x8, [1, 1, 1, 1]) -> 2x8x10x10
        after  pad(x 2x4x8x8, [1, 1, 1, 1]) -> 2x4x10x10
    """

    operators = (
        "aten.pad",
        "aten.constant_pad_nd",
        *(f"aten.{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in (1, 2, 3)),
    )

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        amounts = _amounts(op)
        for axis, size in enumerate(shape_of(source)):
            before, after = amounts[axis]
            if before == 0 and after == 0:
                axes.same((source, axis), (out, axis))
            elif self._appends(op, axis) and is_static(size):
                axes.gather((source, axis), (out, axis), np.arange(size), np.arange(size) + before)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op.node.all_input_nodes[0]]
        amounts = _amounts(op)
        padded = [axis for axis, (before, after) in enumerate(amounts) if before or after]
        if not padded:
            return given
        varying = [axis for axis in padded if given.known.shape[axis] > 1]
        channels = padded[0] == 1 or bool(varying)  # Other axes are spatial: a border, not new channels.
        if len(padded) == 1 and channels and self._appends(op, padded[0]) and is_static(shape_of(op.node)[padded[0]]):
            return self._appended(op, given.plain(), padded[0], amounts[padded[0]])
        fill = _fill(op)
        unchanged = collapsed(given.plain().value, given.plain().known & (given.plain().value == fill))
        if varying:
            return unknown(given.rank)
        if _mode(op) != "constant" or not self._adds(amounts):
            return given.plain()
        if fill != 0 or (len(padded) > 1 and channels):
            return unchanged  # Where channels are added too, not all of them are multiples of one plane.
        return given.with_pattern(op.node.name)

    def rewrite(self, op: Operation, edit: Edit) -> None:
        source, out = op.node.all_input_nodes[0], op.node
        flat = list(op["pad"]) if "pad" in op.arguments else list(op["padding"])
        rank = len(shape_of(out))
        for axis, (before, after) in enumerate(_amounts(op)):
            if (before or after) and self._appends(op, axis) and is_static(shape_of(source)[axis]):
                kept = edit.kept(out, axis)
                place = 2 * (rank - 1 - axis)
                flat[place] = int(kept[:before].sum())
                flat[place + 1] = int(kept[len(kept) - after :].sum()) if after else 0
        if all(is_static(amount) and amount == 0 for amount in flat):
            edit.set_call(op, torch.ops.aten.alias.default, (source,))
        else:
            edit.set_argument(op, "pad" if "pad" in op.arguments else "padding", flat)

    def _appends(self, op: Operation, axis: int) -> bool:
        before, after = _amounts(op)[axis]
        return _mode(op) == "constant" and is_static(before) and is_static(after) and before >= 0 and after >= 0

    def _adds(self, amounts: list[tuple[Any, Any]]) -> bool:
        """Returns if anything may be put around the input, rather than cropped from it."""
        return any(not is_static(amount) or amount > 0 for pair in amounts for amount in pair)

    def _appended(self, op: Operation, given: Facts, axis: int, amount: tuple[int, int]) -> Facts:
        """Facts along an axis that got new constant positions at its ends."""
        size = shape_of(op.node.all_input_nodes[0])[axis]
        if not is_static(size) or _large(size, given):
            return unknown(given.rank)
        shape = [*given.known.shape]
        shape[axis] = size
        margins = [(0, 0)] * given.rank
        margins[axis] = amount
        known = np.pad(np.broadcast_to(given.known, shape), margins, constant_values=True)
        value = np.pad(np.broadcast_to(given.value, shape), margins, constant_values=_fill(op))
        return collapsed(value, known)


def _large(size: int, given: Facts) -> bool:
    return size * given.known.size > 1 << 22


def _amounts(op: Operation) -> list[tuple[Any, Any]]:
    """Before and after for every axis, in the order of the axes."""
    flat = list(op["pad"] if "pad" in op.arguments else op["padding"])
    rank = len(shape_of(op.node))
    amounts: list[tuple[Any, Any]] = [(0, 0)] * rank
    for place in range(len(flat) // 2):
        amounts[rank - 1 - place] = (flat[2 * place], flat[2 * place + 1])
    return amounts


def _mode(op: Operation) -> str:
    if op.name == "aten.constant_pad_nd":
        return "constant"
    return str(op["mode"]) if "mode" in op.arguments else "other"


def _fill(op: Operation) -> float:
    return float(op.get("value") or 0.0)
