"""Convolutions, transposed convolutions and linear layers: every output channel is a weighted sum of input channels.

Let ``W[o, k]`` be the kernel from input channel k to output channel o. A channel k with constant value c contributes
``c * sum(W[o, k])`` everywhere, unless zero padding (or a pattern in the input) makes the border differ. Away from
that case it folds into the bias. With it, all removed constant channels together are carried by one that stays, j:
``W'[:, j] = W[:, j] + sum over removed k of (c_k / c_j) W[:, k]``. Both are exact at any resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, real_numbers, unknown
from ..layers import Layer
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, operator_name, shape_of
from .base import Rule, optional, register, rule_for
from .kernel_blocks import Selection, any_of, blocks_of, stored_form, weighted_taps

__all__ = ["Convolution", "Linear", "LinearMap", "TransposedConvolution", "unusable"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


_CARRIED_RATIO = 16.0
"""A constant channel carries others that are at most this many times as large."""


class LinearMap(Rule):
    """What the three layer kinds share."""

    def reason(self, op: Operation) -> str:
        if op.tensor("weight") is None:
            return f"the weight of {op.name} is computed from other values{_maker(op['weight'])}"
        if self.layer(op) is None:
            return f"the weight of {op.name} is a vector"
        if op.get("bias") is not None and op.tensor("bias") is None:
            return f"the bias of {op.name} is computed from other values{_maker(op['bias'])}"
        if self._usable(op) is None:
            return f"a grouped {op.name} shares its weight with another call"
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        layer = self._usable(op)
        if layer is None:
            return
        weight, source, target = layer.weight, (layer.source, layer.axis), (op.node, layer.axis)
        for axis in range(layer.axis):
            axes.same((layer.source, axis), (op.node, axis))
        if layer.groups == 1:
            axes.same(source, (weight, layer.in_axis))
            axes.same(target, (weight, layer.out_axis))
            axes.producer(weight, layer.out_axis)
            axes.consumer(weight, layer.in_axis)
        elif layer.depthwise:
            axes.same(source, target)
            axes.same(target, (weight, 0))
            axes.producer(weight, 0)
        else:
            axes.grouped(source, target, layer.groups)
            axes.same(source if layer.transposed else target, (weight, 0))
            axes.freeze((weight, 1), "", barrier=False)  # Sliced block by block in `rewrite`.
            if not layer.transposed:
                axes.producer(weight, 0)
        for bias in optional(layer.bias):
            axes.same(target, (bias, 0))
            axes.producer(bias, 0)
        axes.mixes(source, target)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank = len(shape_of(op.node))
        layer = self.layer(op)
        if layer is None or op.tensor("weight") is None or not facts.trusts(layer.source):
            return unknown(rank)
        value, known = self._input(layer, facts)
        moving = ~known | ((value != 0) & (not self._folds(op, layer, facts)))
        constant = ~any_of(self._reaches(op, layer), moving.reshape(layer.groups, -1), 2)
        total = self._response(op, layer, np.where(known, value, 0.0), constant)
        bias = op.tensor("bias")
        if op.get("bias") is not None and bias is None:
            return unknown(rank)
        added, real = real_numbers(bias) if bias is not None else (np.zeros(total.shape), np.ones(total.shape, bool))
        flat, constant = total + added, constant & real
        shape = [1] * rank
        shape[layer.axis] = flat.size
        return collapsed(flat.reshape(shape), constant.reshape(shape))

    def demand(self, op: Operation, live: Liveness) -> None:
        layer = self.layer(op)
        if layer is None:
            return
        reached = self._reached(op, layer, live)
        value, known = self._input(layer, live.facts)
        needed = reached & (~known | ((value != 0) & (not self._absorbs(op, layer, live.facts))))
        live.require(layer.source, layer.axis, needed, f"read by '{op.node.name}'")
        if live.placing_carriers:
            self._place_carriers(op, layer, live, reached)

    def rewrite(self, op: Operation, edit: Edit) -> None:
        layer = self._usable(op)
        if layer is None:
            return
        kept_in = edit.kept(layer.source, layer.axis).reshape(layer.groups, -1)
        kept_out = edit.kept(op.node, layer.axis).reshape(layer.groups, -1)
        if kept_in.all() and kept_out.all():
            return
        selection = Selection.of(kept_in, kept_out)
        absorbs = self._absorbs(op, layer, edit.facts)
        if layer.groups > 1:
            edit.set_argument(op, "groups", len(selection.groups))
        elif not absorbs:
            return  # Plain slicing is right for every reader, and nothing is folded.
        if absorbs and op.node is not next(iter(layer.weight.users)):
            return  # The first reader of the weight has done it for all.
        kernel = _kernel(op, layer)
        new, folded = selection.apply(kernel), None
        if absorbs:
            new, folded = self._absorb(op, layer, edit, kernel, selection, new)
        edit.set_parameter(layer.weight, stored_form(new, layer).to(kernel.dtype))
        if folded is not None:
            _add_to_bias(layer, op, edit, folded)

    def macs(self, op: Operation, shape: Callable[[fx.Node], tuple[int, ...]]) -> int:
        weight, layer = int(np.prod(shape(op["weight"]))), self.layer(op)
        if layer is None:  # A vector: one product for each of its entries and each result.
            return weight * int(np.prod(shape(op.node)))
        counted = shape(layer.source if layer.transposed else op.node)
        return weight * int(np.prod(counted)) // max(1, counted[layer.axis])

    # Details ---------------------------------------------------------------------------------------------------

    def _reaches(self, op: Operation, layer: Layer) -> torch.Tensor:
        """Which input channel of a group reaches which output channel: groups x out/groups x in/groups, bool."""
        if "reaches" not in op.cache:
            kernel = _kernel(op, layer)
            op.cache["reaches"] = kernel[..., 0] != 0 if kernel.shape[3] == 1 else (kernel != 0).any(3)
        reaches: torch.Tensor = op.cache["reaches"]
        return reaches

    def _response(self, op: Operation, layer: Layer, value: Floats, wanted: Bools) -> Floats:
        """What constant inputs add to the wanted output channels away from the border (length: all output channels)."""
        by_group = value.reshape(layer.groups, -1)
        rows = wanted.reshape(layer.groups, -1)
        if by_group.any():  # Rows of zeros are constant too, but have no response.
            rows = rows & any_of(self._reaches(op, layer), by_group != 0, 2).reshape(rows.shape)
        response = np.zeros(rows.shape)
        if by_group.any() and rows.any():
            kernel = _kernel(op, layer)
            places = np.flatnonzero(rows.any(0))
            response[:, places] = weighted_taps(kernel, places, by_group).sum(2)
        return response.reshape(-1)

    def _reached(self, op: Operation, layer: Layer, live: Liveness) -> Bools:
        """Input channels that any kept output channel reads."""
        rows = live.kept(op.node, layer.axis)
        if "reached" in op.cache and np.array_equal(op.cache["reached"][0], rows):
            return np.asarray(op.cache["reached"][1])
        reached = any_of(self._reaches(op, layer), rows.reshape(layer.groups, -1), 1)
        if not reached.all() and not live.facts.ranges[layer.source].finite:
            # Under a weight of zero, too, an infinite entry gives NaN.
            reached = np.repeat(rows.reshape(layer.groups, -1).any(1), reached.size // layer.groups)
        op.cache["reached"] = (rows, reached)
        return reached

    def _input(self, layer: Layer, facts: KnownConstants) -> tuple[Floats, Bools]:
        size = shape_of(layer.source)[layer.axis]
        given = facts[layer.source]
        # A pattern is a plane of the image: along the last axis of a linear layer it is nothing to count on.
        return (given if layer.convolution else given.plain()).along(layer.axis, size)

    def _folds(self, op: Operation, layer: Layer, facts: KnownConstants) -> bool:
        plane = facts[layer.source].pattern is not None and layer.convolution
        return _uniform(op, layer) and not plane and not _complex(layer)

    def _usable(self, op: Operation) -> Layer | None:
        """The layer, if its channels may go. Two grouped calls of one weight could lose different ones of a block."""
        layer = self.layer(op)
        if layer is None or op.tensor("weight") is None or (layer.bias is not None and op.tensor("bias") is None):
            return None
        return layer if layer.groups == 1 or layer.depthwise or len(layer.weight.users) == 1 else None

    def _absorbs(self, op: Operation, layer: Layer, facts: KnownConstants) -> bool:
        """Returns if what constant inputs add may go into the parameters: it is the same for all who read them."""
        stored = _stored(layer)
        if layer.source in stored or _complex(layer):
            return False
        if all(len(node.users) == 1 for node in stored):
            return True
        key = ("absorbs", *stored)
        if key not in facts.memo:
            facts.memo[key] = self._readers_agree(op, layer, facts)
        return bool(facts.memo[key])

    def _readers_agree(self, op: Operation, layer: Layer, facts: KnownConstants) -> bool:
        """Returns if all who read the parameters are calls like this one, with the same constants coming in."""
        stored = _stored(layer)
        readers = set(stored[0].users)
        if any(set(node.users) != readers or operator_name(reader) != op.name for node in stored for reader in readers):
            return False
        wanted, (value, known) = self._kind(op, layer, facts), self._input(layer, facts)
        for call in [Operation(reader, op.module) for reader in readers]:
            other = self.layer(call)
            if other is None or _stored(other) != stored or other.source in stored:
                return False
            theirs, theirs_known = self._input(other, facts)
            same = np.array_equal(known, theirs_known) and np.array_equal(value[known], theirs[known])
            if not same or self._kind(call, other, facts) != wanted:
                return False
        return True

    def _kind(self, op: Operation, layer: Layer, facts: KnownConstants) -> tuple[Any, ...]:
        """What decides how constants are absorbed, beside their values."""
        return (layer.axis, layer.groups, layer.transposed, self._into_bias(op, layer, facts))

    def _into_bias(self, op: Operation, layer: Layer, facts: KnownConstants) -> bool:
        """Returns if the bias can take what constant inputs add; readers that share a weight cannot be given a new one."""
        return self._folds(op, layer, facts) and (layer.bias is not None or len(layer.weight.users) == 1)

    def _place_carriers(self, op: Operation, layer: Layer, live: Liveness, reached: Bools) -> None:
        """Makes sure that every group with removed non-zero constants keeps one channel to carry them."""
        if self._into_bias(op, layer, live.facts):
            return
        value, known = self._input(layer, live.facts)
        kept = live.kept(layer.source, layer.axis)
        candidates = known & (value != 0)
        by_group = (layer.groups, -1)
        waiting = (candidates & ~kept & reached).reshape(by_group).any(1)
        # A weak constant is known with a large relative error when it is a difference of large ones: it carries little.
        largest = np.where(candidates & reached, np.abs(value), 0.0).reshape(by_group).max(1, keepdims=True)
        carried = (
            (candidates & kept).reshape(by_group) & (np.abs(value).reshape(by_group) * _CARRIED_RATIO >= largest)
        ).any(1)
        for group in np.flatnonzero(waiting & ~carried):
            strength = np.where(candidates, np.abs(value), -1.0).reshape(by_group)[group]
            chosen = np.zeros(by_group[0] * strength.size, bool)
            chosen[group * strength.size + int(strength.argmax())] = True
            live.require(layer.source, layer.axis, chosen, f"carries the constants entering '{op.node.name}'")

    def _absorb(
        self,
        op: Operation,
        layer: Layer,
        edit: Edit,
        kernel: torch.Tensor,
        selection: Selection,
        new: torch.Tensor,
    ) -> tuple[torch.Tensor, Floats | None]:
        """`new` with its carriers loaded, or what folds into the bias of the kept output channels instead."""
        value, known = self._input(layer, edit.facts)
        value = value.reshape(selection.kept_in.shape)
        constant = known.reshape(value.shape) & (value != 0)
        gone = constant & ~selection.kept_in
        columns = np.flatnonzero(gone.any(0))
        if not columns.size:
            return new, None
        rows = np.flatnonzero(selection.kept_out.any(0))
        rank_of_row = np.cumsum(selection.kept_out.any(0)) - 1
        if self._into_bias(op, layer, edit.facts):
            folded = np.zeros(selection.kept_out.shape)
            folded[:, rows] = weighted_taps(kernel, rows, np.where(gone, value, 0.0)).sum(2)
            return new, folded[selection.kept_out]
        strength = np.where(constant & selection.kept_in, np.abs(value), 0.0)
        carrier = strength.argmax(1)
        strongest = value[np.arange(len(value)), carrier]
        carried = np.where(strength.max(1) > 0, strongest, np.inf)[:, None]
        load = weighted_taps(kernel, rows, np.where(gone, value / carried, 0.0))
        rank = np.cumsum(selection.kept_in, 1) - 1
        for place, group in enumerate(selection.groups):
            if np.isfinite(carried[group, 0]):
                target = new[place, :, rank[group, carrier[group]]]
                addition = torch.from_numpy(load[group][rank_of_row[selection.rows[place]]]).to(new.device)
                new[place, :, rank[group, carrier[group]]] = (target.double() + addition).to(new.dtype)
        return new, None


@register
class Convolution(LinearMap):
    """``conv1d`` to ``conv3d``, any groups, stride, dilation and zero padding.

    For example::

        before conv1d(x 2x8x12, weight 8x8x3, bias 8) -> 2x8x10
        after  conv1d(x 2x4x12, weight 4x4x3, bias 4) -> 2x4x10
    """

    operators = ("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution")

    def layer(self, op: Operation) -> Layer:
        return _convolution(op, bool(op.get("transposed", False)))


@register
class TransposedConvolution(LinearMap):
    """``conv_transpose1d`` to ``conv_transpose3d``, output padding included. Constants never stay constant: at the
    border fewer taps overlap.

    For example::

        before conv_transpose1d(x 2x8x12, weight 8x8x3, bias 8) -> 2x8x14
        after  conv_transpose1d(x 2x4x12, weight 4x4x3, bias 4) -> 2x4x14
    """

    operators = ("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")

    def layer(self, op: Operation) -> Layer:
        return _convolution(op, True)


@register
class Linear(LinearMap):
    """``linear``: the last axis is mixed, all others pass.

    For example::

        before linear(x 2x5x8, weight 4x8, bias 4) -> 2x5x4
        after  linear(x 2x5x4, weight 4x4, bias 4) -> 2x5x4
    """

    operators = ("aten.linear",)

    def layer(self, op: Operation) -> Layer | None:
        if len(shape_of(op["weight"])) < 2:
            return None
        return Layer(op["input"], len(shape_of(op["input"])) - 1, op["weight"], op.get("bias"), 0, 1)


def _convolution(op: Operation, transposed: bool) -> Layer:
    weight = op["weight"]
    axis = len(shape_of(op["input"])) - len(shape_of(weight)) + 1
    out_axis, in_axis = (1, 0) if transposed else (0, 1)
    taps = shape_of(weight)[2:]
    return Layer(op["input"], axis, weight, op.get("bias"), out_axis, in_axis, int(op["groups"]), transposed, taps)


def unusable(op: Operation) -> str:
    """Why the weight of a layer cannot be pruned; empty where it can, and where the call is no such layer."""
    rule = rule_for(op.name)
    return rule.reason(op) if isinstance(rule, LinearMap) else ""


def _maker(value: Any) -> str:
    """The operator that computes a weight."""
    while isinstance(value, fx.Node) and operator_name(value) == "getitem":
        value = value.args[0]
    return f" by {operator_name(value)}" if isinstance(value, fx.Node) and value.op == "call_function" else ""


def _complex(layer: Layer) -> bool:
    """Returns if a layer has complex numbers, whose response to constants is no real one."""
    return bool(layer.source.meta["val"].is_complex())


def _stored(layer: Layer) -> list[fx.Node]:
    """The nodes of the call's parameters."""
    return [layer.weight, *optional(layer.bias)]


def _kernel(op: Operation, layer: Layer) -> torch.Tensor:
    """The stored weight as groups x out/groups x in/groups x taps."""
    weight = op.tensor("weight")
    assert weight is not None
    return blocks_of(weight, layer)


def _add_to_bias(layer: Layer, op: Operation, edit: Edit, amount: Floats) -> None:
    weight = op.tensor("weight")
    assert weight is not None
    addition = torch.from_numpy(amount).to(weight.device)
    if layer.bias is not None:
        old = edit.parameter(layer.bias)
        edit.set_parameter(layer.bias, (old.double() + addition).to(old.dtype))
    else:
        node = edit.add_parameter(op, str(layer.weight.target), "bias", addition.to(weight.dtype))
        edit.set_argument(op, "bias", node)


def _uniform(op: Operation, layer: Layer) -> bool:
    """Returns if a constant input channel gives a constant output, border included."""
    return not layer.transposed and not _pads(op.get("padding", 0), layer.taps)


def _pads(padding: Any, kernel: tuple[int, ...]) -> bool:
    """Returns if a convolution sees zeros beyond the border of its input."""
    if padding == "valid":
        return False
    if padding == "same":
        return any(size > 1 for size in kernel)
    sizes = [padding] if isinstance(padding, int) else list(padding)
    return any(not is_static(size) or size != 0 for size in sizes)
