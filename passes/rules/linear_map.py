"""Convolutions, transposed convolutions and linear layers: every output channel is a weighted sum of input channels.

Let ``W[o, k]`` be the kernel from input channel k to output channel o. A channel k with constant value c contributes
``c * sum(W[o, k])`` everywhere, unless zero padding (or a pattern in the input) makes the border differ. Away from
that case it folds into the bias. With it, all removed constant channels together are carried by one that stays, j:
``W'[:, j] = W[:, j] + sum over removed k of (c_k / c_j) W[:, k]``. Both are exact at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, real_numbers, unknown
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, operator_name, shape_of
from .base import Rule, optional, register, rule_for

__all__ = ["Convolution", "Geometry", "Linear", "LinearMap", "TransposedConvolution", "unusable"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """How one call is laid out. Kernels are seen as ``groups x out/groups x in/groups x taps``."""

    source: fx.Node
    source_axis: int
    target_axis: int
    groups: int
    transposed: bool
    uniform: bool
    """A constant input channel gives a constant output, border included."""
    image: bool = True
    """Axes behind the channel axis are an image."""


_WEAK = 16.0
"""A constant channel carries others that are at most this many times as large."""


class LinearMap(Rule):
    """What the three layer kinds share."""

    def geometry(self, op: Operation) -> Geometry:
        """The layout of a call."""
        raise NotImplementedError

    def reason(self, op: Operation) -> str:
        if op.tensor("weight") is None:
            return f"the weight of {op.name} is computed from other values{_maker(op['weight'])}"
        if len(shape_of(op["weight"])) < 2:
            return f"the weight of {op.name} is a vector"
        if op.get("bias") is not None and op.tensor("bias") is None:
            return f"the bias of {op.name} is computed from other values{_maker(op['bias'])}"
        if not self._usable(op):
            return f"a grouped {op.name} shares its weight with another call"
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if not self._usable(op):
            return
        geometry = self.geometry(op)
        weight, out = op["weight"], op.node
        source, target = (geometry.source, geometry.source_axis), (out, geometry.target_axis)
        for axis in range(geometry.target_axis):
            axes.same((geometry.source, axis), (out, axis))
        out_axis, in_axis = (1, 0) if geometry.transposed else (0, 1)
        if geometry.groups == 1:
            axes.same(source, (weight, in_axis))
            axes.same(target, (weight, out_axis))
            axes.producer(weight, out_axis)
            axes.consumer(weight, in_axis)
        elif _depthwise(op, geometry):
            axes.same(source, target)
            axes.same(target, (weight, 0))
            axes.producer(weight, 0)
        else:
            axes.grouped(source, target, geometry.groups)
            axes.same(source if geometry.transposed else target, (weight, 0))
            axes.freeze((weight, 1), "", barrier=False)  # Sliced block by block in `rewrite`.
            if not geometry.transposed:
                axes.producer(weight, 0)
        for bias in optional(op.get("bias")):
            axes.same(target, (bias, 0))
            axes.producer(bias, 0)
        axes.mixes(source, target)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        if op.tensor("weight") is None or len(shape_of(op["weight"])) < 2 or not facts.trusts(op["input"]):
            return unknown(rank)
        geometry = self.geometry(op)
        value, known = self._input(geometry, facts)
        moving = ~known | ((value != 0) & (not self._folds(geometry, facts)))
        constant = ~_any_of(self._reaches(op, geometry), moving.reshape(geometry.groups, -1), 2)
        total = self._response(op, geometry, np.where(known, value, 0.0), constant)
        bias = op.tensor("bias")
        if op.get("bias") is not None and bias is None:
            return unknown(rank)
        added, real = real_numbers(bias) if bias is not None else (np.zeros(total.shape), np.ones(total.shape, bool))
        flat, constant = total + added, constant & real
        shape = [1] * rank
        shape[geometry.target_axis] = flat.size
        return collapsed(flat.reshape(shape), constant.reshape(shape))

    def demand(self, op: Operation, live: Liveness) -> None:
        geometry = self.geometry(op)
        reached = self._reached(op, geometry, live)
        value, known = self._input(geometry, live.facts)
        needed = reached & (~known | ((value != 0) & (not self._absorbs(op, live.facts))))
        live.require(geometry.source, geometry.source_axis, needed, f"read by '{op.node.name}'")
        if live.placing_carriers:
            self._place_carriers(op, geometry, live, reached)

    def rewrite(self, op: Operation, edit: Edit) -> None:
        if not self._usable(op):
            return
        geometry = self.geometry(op)
        kept_in = edit.kept(geometry.source, geometry.source_axis).reshape(geometry.groups, -1)
        kept_out = edit.kept(op.node, geometry.target_axis).reshape(geometry.groups, -1)
        if kept_in.all() and kept_out.all():
            return
        selection = _Selection.of(kept_in, kept_out)
        absorbs = self._absorbs(op, edit.facts)
        if geometry.groups > 1:
            edit.set_argument(op, "groups", len(selection.groups))
        elif not absorbs:
            return  # Plain slicing is right for every reader, and nothing is folded.
        if absorbs and op.node is not next(iter(op["weight"].users)):
            return  # The first reader of the weight has done it for all.
        kernel = self._kernel(op, geometry)
        new = selection.apply(kernel)
        folded = None
        if absorbs:
            new, folded = self._absorb(op, geometry, edit, kernel, selection, new)
        weight = op.tensor("weight")
        assert weight is not None
        edit.set_parameter(op["weight"], self._weight(new, geometry, tuple(weight.shape)).to(weight.dtype))
        if folded is not None:
            self._add_to_bias(op, edit, folded)

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        geometry = self.geometry(op)
        weight = int(np.prod(shape(op["weight"])))
        counted = shape(geometry.source if geometry.transposed else op.node)
        axis = geometry.source_axis if geometry.transposed else geometry.target_axis
        return weight * int(np.prod(counted)) // max(1, counted[axis])

    # Details ---------------------------------------------------------------------------------------------------

    def _kernel(self, op: Operation, geometry: Geometry) -> torch.Tensor:
        """The weight as groups x out/groups x in/groups x taps."""
        weight = op.tensor("weight")
        assert weight is not None
        first = weight.shape[0] // geometry.groups
        kernel = weight.reshape(geometry.groups, first, weight.shape[1], -1)
        return kernel.transpose(1, 2) if geometry.transposed else kernel

    def _weight(self, kernel: torch.Tensor, geometry: Geometry, old: tuple[int, ...]) -> torch.Tensor:
        """The inverse of `_kernel`."""
        stored = kernel.transpose(1, 2) if geometry.transposed else kernel
        groups, first, second, _ = stored.shape
        return stored.reshape(groups * first, second, *old[2:]).contiguous()

    def _reaches(self, op: Operation, geometry: Geometry) -> torch.Tensor:
        """Which input channel of a group reaches which output channel: groups x out/groups x in/groups, bool."""
        if "reaches" not in op.cache:
            kernel = self._kernel(op, geometry)
            op.cache["reaches"] = kernel[..., 0] != 0 if kernel.shape[3] == 1 else (kernel != 0).any(3)
        reaches: torch.Tensor = op.cache["reaches"]
        return reaches

    def _response(self, op: Operation, geometry: Geometry, value: Floats, wanted: Bools) -> Floats:
        """What constant inputs add to the wanted output channels away from the border (length: all output channels)."""
        by_group = value.reshape(geometry.groups, -1)
        rows = wanted.reshape(geometry.groups, -1)
        if by_group.any():  # Rows of zeros are constant too, but have no response.
            rows = rows & _any_of(self._reaches(op, geometry), by_group != 0, 2).reshape(rows.shape)
        response = np.zeros(rows.shape)
        if by_group.any() and rows.any():
            kernel = self._kernel(op, geometry)
            places = np.flatnonzero(rows.any(0))
            response[:, places] = _weighted_taps(kernel, places, by_group).sum(2)
        return response.reshape(-1)

    def _reached(self, op: Operation, geometry: Geometry, live: Liveness) -> Bools:
        """Input channels that any kept output channel reads."""
        rows = live.kept(op.node, geometry.target_axis)
        if "reached" in op.cache and np.array_equal(op.cache["reached"][0], rows):
            return np.asarray(op.cache["reached"][1])
        reached = _any_of(self._reaches(op, geometry), rows.reshape(geometry.groups, -1), 1)
        if not reached.all() and not live.facts.ranges[geometry.source].finite:
            # Under a weight of zero, too, an infinite entry gives NaN.
            reached = np.repeat(rows.reshape(geometry.groups, -1).any(1), reached.size // geometry.groups)
        op.cache["reached"] = (rows, reached)
        return reached

    def _input(self, geometry: Geometry, facts: KnownConstants) -> tuple[Floats, Bools]:
        size = shape_of(geometry.source)[geometry.source_axis]
        given = facts[geometry.source]
        # A pattern is a plane of the image: along the last axis of a linear layer it is nothing to count on.
        return (given if geometry.image else given.plain()).along(geometry.source_axis, size)

    def _folds(self, geometry: Geometry, facts: KnownConstants) -> bool:
        plane = facts[geometry.source].pattern is not None and geometry.image
        return geometry.uniform and not plane and not _complex(geometry)

    def _usable(self, op: Operation) -> bool:
        """Two grouped calls of one weight could lose different channels of a block; such a weight stays whole."""
        if op.tensor("weight") is None or (op.get("bias") is not None and op.tensor("bias") is None):
            return False
        if len(shape_of(op["weight"])) < 2:
            return False
        geometry = self.geometry(op)
        return geometry.groups == 1 or _depthwise(op, geometry) or len(op["weight"].users) == 1

    def _absorbs(self, op: Operation, facts: KnownConstants) -> bool:
        """Returns if what constant inputs add may go into the parameters: it is the same for all who read them."""
        stored = _stored(op)
        if op["input"] in stored or _complex(self.geometry(op)):
            return False
        if all(len(node.users) == 1 for node in stored):
            return True
        key = ("absorbs", *stored)
        if key not in facts.memo:
            facts.memo[key] = self._readers_agree(op, facts)
        return bool(facts.memo[key])

    def _readers_agree(self, op: Operation, facts: KnownConstants) -> bool:
        """Returns if all who read the parameters are calls like this one, with the same constants coming in."""
        stored = _stored(op)
        readers = set(stored[0].users)
        if any(set(node.users) != readers or operator_name(reader) != op.name for node in stored for reader in readers):
            return False
        calls = [Operation(reader, op.module) for reader in readers]
        if any(_stored(call) != stored or call["input"] in stored for call in calls):
            return False
        wanted, (value, known) = self._kind(op, facts), self._input(self.geometry(op), facts)
        for call in calls:
            other, other_known = self._input(self.geometry(call), facts)
            same = np.array_equal(known, other_known) and np.array_equal(value[known], other[known])
            if not same or self._kind(call, facts) != wanted:
                return False
        return True

    def _kind(self, op: Operation, facts: KnownConstants) -> tuple[Any, ...]:
        """What decides how constants are absorbed, beside their values."""
        geometry = self.geometry(op)
        return (geometry.source_axis, geometry.groups, geometry.transposed, self._into_bias(op, geometry, facts))

    def _into_bias(self, op: Operation, geometry: Geometry, facts: KnownConstants) -> bool:
        """Returns if the bias can take what constant inputs add; readers that share a weight cannot be given a new one."""
        return self._folds(geometry, facts) and (op.get("bias") is not None or len(op["weight"].users) == 1)

    def _place_carriers(self, op: Operation, geometry: Geometry, live: Liveness, reached: Bools) -> None:
        """Makes sure that every group with removed non-zero constants keeps one channel to carry them."""
        if self._into_bias(op, geometry, live.facts):
            return
        value, known = self._input(geometry, live.facts)
        kept = live.kept(geometry.source, geometry.source_axis)
        candidates = known & (value != 0)
        by_group = (geometry.groups, -1)
        waiting = (candidates & ~kept & reached).reshape(by_group).any(1)
        # A weak constant is known with a large relative error when it is a difference of large ones: it carries little.
        largest = np.where(candidates & reached, np.abs(value), 0.0).reshape(by_group).max(1, keepdims=True)
        carried = ((candidates & kept).reshape(by_group) & (np.abs(value).reshape(by_group) * _WEAK >= largest)).any(1)
        for group in np.flatnonzero(waiting & ~carried):
            strength = np.where(candidates, np.abs(value), -1.0).reshape(by_group)[group]
            chosen = np.zeros(by_group[0] * strength.size, bool)
            chosen[group * strength.size + int(strength.argmax())] = True
            live.require(
                geometry.source, geometry.source_axis, chosen, f"carries the constants entering '{op.node.name}'"
            )

    def _absorb(
        self,
        op: Operation,
        geometry: Geometry,
        edit: Edit,
        kernel: torch.Tensor,
        selection: _Selection,
        new: torch.Tensor,
    ) -> tuple[torch.Tensor, Floats | None]:
        """`new` with its carriers loaded, or what folds into the bias of the kept output channels instead."""
        value, known = self._input(geometry, edit.facts)
        value = value.reshape(selection.kept_in.shape)
        constant = known.reshape(value.shape) & (value != 0)
        gone = constant & ~selection.kept_in
        columns = np.flatnonzero(gone.any(0))
        if not columns.size:
            return new, None
        rows = np.flatnonzero(selection.kept_out.any(0))
        rank_of_row = np.cumsum(selection.kept_out.any(0)) - 1
        if self._into_bias(op, geometry, edit.facts):
            folded = np.zeros(selection.kept_out.shape)
            folded[:, rows] = _weighted_taps(kernel, rows, np.where(gone, value, 0.0)).sum(2)
            return new, folded[selection.kept_out]
        strength = np.where(constant & selection.kept_in, np.abs(value), 0.0)
        carrier = strength.argmax(1)
        strongest = value[np.arange(len(value)), carrier]
        carried = np.where(strength.max(1) > 0, strongest, np.inf)[:, None]
        load = _weighted_taps(kernel, rows, np.where(gone, value / carried, 0.0))
        rank = np.cumsum(selection.kept_in, 1) - 1
        for place, group in enumerate(selection.groups):
            if np.isfinite(carried[group, 0]):
                target = new[place, :, rank[group, carrier[group]]]
                addition = torch.from_numpy(load[group][rank_of_row[selection.rows[place]]]).to(new.device)
                new[place, :, rank[group, carrier[group]]] = (target.double() + addition).to(new.dtype)
        return new, None

    def _add_to_bias(self, op: Operation, edit: Edit, amount: Floats) -> None:
        weight = op.tensor("weight")
        assert weight is not None
        addition = torch.from_numpy(amount).to(weight.device)
        if isinstance(op.get("bias"), fx.Node):
            old = edit.parameter(op["bias"])
            edit.set_parameter(op["bias"], (old.double() + addition).to(old.dtype))
        else:
            node = edit.add_parameter(op, str(op["weight"].target), "bias", addition.to(weight.dtype))
            edit.set_argument(op, "bias", node)


@register
class Convolution(LinearMap):
    """``conv1d`` to ``conv3d``, any groups, stride, dilation and zero padding."""

    operators = ("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")

    def geometry(self, op: Operation) -> Geometry:
        spatial = len(shape_of(op["weight"])) - 2
        axis = len(shape_of(op["input"])) - spatial - 1
        transposed = bool(op.get("transposed", False))
        kernel = shape_of(op["weight"])[2:]
        uniform = not transposed and not _pads(op["padding"], kernel)
        return Geometry(op["input"], axis, axis, int(op["groups"]), transposed, uniform)


@register
class TransposedConvolution(LinearMap):
    """``conv_transpose1d`` to ``conv_transpose3d``, output padding included. Constants never stay constant: at the
    border fewer taps overlap."""

    operators = ("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")

    def geometry(self, op: Operation) -> Geometry:
        axis = len(shape_of(op["input"])) - len(shape_of(op["weight"])) + 1
        return Geometry(op["input"], axis, axis, int(op["groups"]), True, False)


@register
class Linear(LinearMap):
    """``linear``: the last axis is mixed, all others pass."""

    operators = ("aten.linear",)

    def geometry(self, op: Operation) -> Geometry:
        axis = len(shape_of(op["input"])) - 1
        return Geometry(op["input"], axis, axis, 1, False, True, image=False)


def unusable(op: Operation) -> str:
    """Why the weight of a layer cannot be pruned; empty where it can, and where the call is no such layer."""
    rule = rule_for(op.name)
    return rule.reason(op) if isinstance(rule, LinearMap) else ""


def _maker(value: Any) -> str:
    """The operator that computes a weight."""
    while isinstance(value, fx.Node) and operator_name(value) == "getitem":
        value = value.args[0]
    return f" by {operator_name(value)}" if isinstance(value, fx.Node) and value.op == "call_function" else ""


def _complex(geometry: Geometry) -> bool:
    """Returns if a layer has complex numbers, whose response to constants is no real one."""
    return bool(geometry.source.meta["val"].is_complex())


def _stored(op: Operation) -> list[fx.Node]:
    """The nodes of the call's parameters."""
    return [node for name in ("weight", "bias") for node in optional(op.get(name))]


def _weighted_taps(kernel: torch.Tensor, rows: NDArray[np.int64], weight: Floats) -> Floats:
    """``sum over k of weight[g, k] * kernel[g, rows, k]`` in float64: groups x rows x taps.

    Works through a few rows at a time, so that no float64 copy of a large kernel is made.
    """
    columns = np.flatnonzero((weight != 0).any(0))
    groups, _, width, taps = kernel.shape
    if 4 * len(columns) > width:  # Picking most columns costs more than multiplying by zero.
        columns = np.arange(width)
    factor = torch.from_numpy(np.ascontiguousarray(weight[:, columns]))
    chunk = max(1, (1 << 21) // max(1, groups * len(columns) * taps))
    parts = []
    for start in range(0, len(rows), chunk):
        part = kernel[:, torch.from_numpy(rows[start : start + chunk])]
        part = part if len(columns) == width else part[:, :, torch.from_numpy(columns)]
        parts.append(torch.einsum("gokt,gk->got", part.double().cpu(), factor))
    return np.asarray(torch.cat(parts, 1).numpy()) if parts else np.zeros((groups, 0, taps))


def _any_of(reaches: torch.Tensor, chosen: Bools, axis: int) -> Bools:
    """For every group, which positions of one axis meet a chosen one of the other (`axis`, 1: rows, 2: columns)."""
    if chosen.shape[0] == 1 and axis == 1:  # Whole rows are cheap to pick; columns of a row are not.
        reaches = reaches.index_select(1, torch.from_numpy(np.flatnonzero(chosen[0])))
    elif not chosen.all():
        reaches = reaches & torch.from_numpy(np.expand_dims(chosen, 3 - axis))
    if reaches.shape[axis] == 0:
        return np.zeros(reaches.shape[0] * reaches.shape[3 - axis], bool)
    # The largest byte is the same as `any`, and several times faster along rows.
    return np.asarray(reaches.view(torch.uint8).amax(axis).bool().reshape(-1).cpu().numpy())


@dataclass(frozen=True, eq=False)
class _Selection:
    """Which blocks, rows and columns of a kernel stay. All active blocks keep equally many."""

    kept_in: Bools  # groups x in/groups
    kept_out: Bools  # groups x out/groups
    groups: NDArray[np.int64]
    rows: NDArray[np.int64]  # active groups x kept rows
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, kept_in: Bools, kept_out: Bools) -> _Selection:
        groups = np.flatnonzero(kept_out.any(1))
        rows, columns = (np.nonzero(kept[groups])[1].reshape(len(groups), -1) for kept in (kept_out, kept_in))
        return cls(kept_in, kept_out, groups, rows, columns)

    def apply(self, kernel: torch.Tensor) -> torch.Tensor:
        """The kept part of a groups x out/groups x in/groups x taps kernel."""
        groups, rows, columns = map(torch.from_numpy, (self.groups, self.rows, self.columns))
        if len(kernel) == 1:
            return kernel[0].index_select(0, rows[0]).index_select(1, columns[0])[None]
        return kernel[groups[:, None, None], rows[:, :, None], columns[:, None, :]]


def _depthwise(op: Operation, geometry: Geometry) -> bool:
    """One input and one output channel a group."""
    return geometry.groups == shape_of(geometry.source)[geometry.source_axis] == shape_of(op.node)[geometry.target_axis]


def _pads(padding: Any, kernel: tuple[int, ...]) -> bool:
    """Returns if a convolution sees zeros beyond the border of its input."""
    if padding == "valid":
        return False
    if padding == "same":
        return any(size > 1 for size in kernel)
    sizes = [padding] if isinstance(padding, int) else list(padding)
    return any(not is_static(size) or size != 0 for size in sizes)
