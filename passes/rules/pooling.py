"""Pooling and resampling: channel by channel, so every channel axis passes; windows decide what stays constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import fx

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants
from ..values import Operation, is_static, shape_of
from .base import Rule, register, rule_of
from .elementwise import Identity
from .padding import Border, border_of

__all__ = ["AveragePool", "Resample", "Spatial", "Window"]


class Spatial(Rule):
    """The leading axes pass; the last `spatial` ones are the image."""

    linear: ClassVar[bool] = False
    """Multiples of one plane give multiples of another."""

    def reason(self, op: Operation) -> str:
        return ""

    def spatial(self, op: Operation) -> int:
        """How many trailing axes the operator works on."""
        return int(op.name[-2]) if op.name[-1] == "d" else int(op.name.split("d")[0][-1])

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        source = op.node.all_input_nodes[0]
        for out in op.outputs:
            if out is not None:
                for axis in range(len(shape_of(out)) - self.spatial(op)):
                    axes.same((source, axis), (out, axis))

    def uniform(self, op: Operation, facts: KnownConstants) -> Facts:
        """The input's constants, forgotten if they differ within an image. A pattern stays one if the operator is linear."""
        given = facts[op.node.all_input_nodes[0]]
        given = given.cut(op.node.name) if self.linear else given.plain()
        image = given.known.shape[given.rank - self.spatial(op) :]
        return given if all(extent == 1 for extent in image) else unknown(given.rank)


@register
class Window(Spatial):
    """Maximum and adaptive pooling: windows hold input values only, so a constant stays that constant.

    A maximum does not see a border of numbers that are no larger: -infinity around an image, as TensorFlow pads it, zeros
    around a ReLU.

    For example::

        before max_pool1d(x 2x8x11, [2]) -> 2x8x5
        after  max_pool1d(x 2x4x11, [2]) -> 2x4x5
    """

    operators = (
        *(f"aten.max_pool{rank}d" for rank in (1, 2, 3)),
        *(f"aten.adaptive_avg_pool{rank}d" for rank in (1, 2, 3)),
        *(f"aten.adaptive_max_pool{rank}d" for rank in (1, 2, 3)),
        *(f"aten.max_pool{rank}d_with_indices" for rank in (2, 3)),
    )

    def spatial(self, op: Operation) -> int:
        return int(op.name.split("pool")[1][0])

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        given = self.uniform(op, facts)
        border = _border_before(op) if op.name.startswith("aten.max_pool") else None
        if border is not None and _windows_meet(op, border, self.spatial(op)):
            inside = facts[border.inside].plain()
            if all(extent == 1 for extent in inside.known.shape[inside.rank - self.spatial(op) :]):
                given = collapsed(inside.value, inside.known & (inside.value >= border.fill))
        if len(op.outputs) == 1:
            return given
        return [given, *(unknown(given.rank) for _ in op.outputs[1:])]


@register
class AveragePool(Spatial):
    """Averages over windows. Where the padding counts (``count_include_pad``), a constant wears off at the border:
    every constant channel is then a multiple of one and the same plane.

    For example::

        before avg_pool1d(x 2x8x11, [2]) -> 2x8x5
        after  avg_pool1d(x 2x5x11, [2]) -> 2x5x5
    """

    linear = True
    operators = tuple(f"aten.avg_pool{rank}d" for rank in (1, 2, 3))

    def spatial(self, op: Operation) -> int:
        return int(op.name.split("pool")[1][0])

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = self.uniform(op, facts)
        padded = any(size != 0 for size in _list(op["padding"]))
        divisor = op.get("divisor_override")
        if divisor is not None or (padded and op["count_include_pad"]) or op["ceil_mode"]:
            plain = divisor is None and not padded
            return given if plain else given.with_pattern(op.node.name)
        return given


@register
class Resample(Spatial):
    """Nearest, linear and cubic upsampling: the weights of every output pixel sum to one.

    For example::

        before upsample_nearest1d(x 2x8x11, None, [2]) -> 2x8x22
        after  upsample_nearest1d(x 2x5x11, None, [2]) -> 2x5x22
    """

    linear = True
    operators = tuple(
        f"aten.{name}"
        for name in (
            "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
            "_upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d "
            "_upsample_bilinear2d_aa _upsample_bicubic2d_aa"
        ).split()
    )

    def spatial(self, op: Operation) -> int:
        return len(shape_of(op.node)) - 2

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return self.uniform(op, facts)


def _border_before(op: Operation) -> Border | None:
    """What stands around the image that comes in: all constant padding before the call, with the largest of its numbers."""
    found: Border | None = None
    node = op.node.all_input_nodes[0]
    while node.op == "call_function":
        before = Operation(node, op.module)
        border = border_of(before)
        if border is not None:
            outer = found or Border(node, ((0, 0),) * len(border.amounts), border.fill)
            pairs = zip(outer.amounts, border.amounts, strict=True)
            amounts = tuple((a + c, b + d) for (a, b), (c, d) in pairs)
            found = Border(border.inside, amounts, max(outer.fill, border.fill))
            node = border.inside
        elif isinstance(rule_of(before), Identity) and _same_type(node, node.all_input_nodes[0]):
            node = node.all_input_nodes[0]
        else:
            break
    return found


def _same_type(first: fx.Node, second: fx.Node) -> bool:
    kinds = first.meta["val"].dtype, second.meta["val"].dtype
    return kinds[0] is kinds[1]


def _windows_meet(op: Operation, border: Border, spatial: int) -> bool:
    """Returns if every window of a maximum reads at least one entry that is not of the border."""
    rank = len(border.amounts)
    if any(amount for pair in border.amounts[: rank - spatial] for amount in pair):
        return False
    kernel, padding, dilation = (_each(op[name], spatial) for name in ("kernel_size", "padding", "dilation"))
    stride = _each(op["stride"], spatial) if _list(op["stride"]) else kernel
    for place, (size, step, around, apart) in enumerate(zip(kernel, stride, padding, dilation, strict=True)):
        before, after = border.amounts[rank - spatial + place]
        inside, windows = shape_of(border.inside)[place - spatial], op.shape[place - spatial]
        if is_static(inside) and is_static(windows):
            read = np.arange(windows)[:, None] * step - around + np.arange(size) * apart
            if not ((read >= before) & (read < before + inside)).any(1).all():
                return False
        elif apart != 1 or op["ceil_mode"] or size - 1 - around < max(before, after):
            return False
    return True


def _each(value: Any, spatial: int) -> list[int]:
    listed = _list(value)
    return listed * spatial if len(listed) == 1 else listed


def _list(value: Any) -> list[Any]:
    return [value] if isinstance(value, int) else list(value)
