"""Batch, instance, group and layer normalisation, in inference.

Batch normalisation is affine per channel. The others normalise by statistics of the input itself: exact where a whole
statistic's channels go together (instance: one channel; group: one group), and for zeros that the statistics still count
(group, layer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..axes import AxesBuilder
from ..edit import Edit
from ..facts import Facts, collapsed, unknown
from ..liveness import KnownConstants, Liveness
from ..values import Operation, is_static, shape_of
from .base import Rule, optional, register

__all__ = ["BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"]

aten = torch.ops.aten
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _parameter(op: Operation, name: str, default: float, size: int) -> Floats | None:
    """A stored per-channel tensor in float64, `default` where the operator has none, None where it is computed."""
    if op.get(name) is None:
        return np.full(size, default)
    tensor = op.tensor(name)
    return None if tensor is None else tensor.double().cpu().numpy().reshape(-1)


def _switched_off(op: Operation, weight: Floats, facts: KnownConstants) -> Bools:
    """Where a scale of zero leaves the bias alone: what it scales has to be finite."""
    off: Bools = weight == 0
    return off & facts.ranges[op.node].finite if off.any() else off


def _per_channel(values: Floats, known: Bools, rank: int, axis: int = 1) -> Facts:
    shape = [1] * rank
    shape[axis] = values.size
    return collapsed(values.reshape(shape), known.reshape(shape))


def _relate_channels(op: Operation, axes: AxesBuilder, parameters: Sequence[str], measured: Sequence[int] = ()) -> None:
    """All axes pass; the per-channel parameters belong to the channel axis. Those that are `measured` stay whole."""
    if any(out is not None for out in op.outputs[1:]):
        return  # Who reads the saved statistics needs them whole.
    source = op["input"]
    for out in op.outputs:
        if out is not None:
            axes.pass_through(source, out, ((a, a) for a in range(len(shape_of(out)))))
    for axis in measured:
        axes.freeze((source, axis), f"{op.name.removeprefix('aten.')} takes its statistics over this axis")
    for name in parameters:
        for parameter in optional(op.get(name)):
            axes.same((parameter, 0), (source, 1))
            if name in ("weight", "bias"):
                axes.producer(parameter, 0)


def _stored_statistics(op: Operation, facts: KnownConstants) -> Facts:
    """Constants through normalisation by stored statistics, which is affine per channel."""
    rank, size = len(op.shape), op.shape[1]
    parts = [
        _parameter(op, name, default, size)
        for name, default in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0))
    ]
    if any(part is None for part in parts) or op.get("running_mean") is None:
        return unknown(rank)
    weight, bias, mean, variance = (part for part in parts if part is not None)
    value, known = facts[op["input"]].plain().along(1, size)
    out = (value - mean) / np.sqrt(variance + op["eps"]) * weight + bias
    off = _switched_off(op, weight, facts)
    return _per_channel(np.where(off, bias, out), known | off, rank)


@register
class BatchNormalization(Rule):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` with stored statistics (Ioffe and Szegedy, 2015).

    For example::

        before batch_norm(x 4x8, weight 8, bias 8, running_mean 8, running_var 8, False, 0.1, 1e-05, False) -> 4x8
        after  batch_norm(x 4x4, weight 4, bias 4, running_mean 4, running_var 4, False, 0.1, 1e-05, False) -> 4x4
    """

    operators = ("aten.batch_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training")

    def reason(self, op: Operation) -> str:
        return "batch normalisation by the batch's own statistics" if op.get("training") else ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        measured = [axis for axis in range(len(op.shape)) if axis != 1] if op.get("training") else []
        _relate_channels(op, axes, ("weight", "bias", "running_mean", "running_var"), measured)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts | Sequence[Facts]:
        found = unknown(len(op.shape)) if op.get("training") else _stored_statistics(op, facts)
        return [found, *(unknown(1) for _ in op.outputs[1:])]


@register
class InstanceNormalization(Rule):
    """Each channel by its own mean and variance: a constant channel becomes its bias.

    For example::

        before instance_norm(x 2x8x8x8, None, None, None, None, True, 0.1, 1e-05, False) -> 2x8x8x8
        after  instance_norm(x 2x4x8x8, None, None, None, None, True, 0.1, 1e-05, False) -> 2x4x8x8
    """

    operators = ("aten.instance_norm",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        measured = range(2, len(op.shape)) if op["use_input_stats"] else ()
        _relate_channels(op, axes, ("weight", "bias", "running_mean", "running_var"), measured)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank, size = len(shape_of(op.node)), shape_of(op.node)[1]
        weight, bias = _parameter(op, "weight", 1.0, size), _parameter(op, "bias", 0.0, size)
        if not op["use_input_stats"]:
            return _stored_statistics(op, facts)
        if weight is None or bias is None:
            return unknown(rank)
        _, known = facts[op["input"]].plain().along(1, size)
        varies = op["eps"] > 0  # Without an epsilon, what does not vary is divided by zero.
        return _per_channel(bias, (known & varies) | _switched_off(op, weight, facts), rank)


@register
class GroupNormalization(Rule):
    """Channels of a group share a mean and a variance (Wu and He, 2018).

    Whole groups leave nothing behind. Where single channels of zeros are gone, they are put back for the normalisation
    alone, as in `LayerNormalization`: behind the others of a single group, or each in its group. Pruning takes whole groups
    where there are several.

    For example::

        before group_norm(x 2x16x8x8, 4, weight 16, bias 16, 1e-05, False) -> 2x16x8x8
        after  group_norm(x 2x8x8x8, 2, weight 8, bias 8, 1e-05, False) -> 2x8x8x8
    """

    operators = ("aten.group_norm",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        _relate_channels(op, axes, ("weight", "bias"), range(2, len(op.shape)))
        if op["num_groups"] > 1:
            axes.together((op.node, 1), np.arange(op.shape[1]) // (op.shape[1] // op["num_groups"]))
        axes.mixes((op["input"], 1), (op.node, 1))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank, size = len(shape_of(op.node)), shape_of(op.node)[1]
        weight, bias = _parameter(op, "weight", 1.0, size), _parameter(op, "bias", 0.0, size)
        if weight is None or bias is None:
            return unknown(rank)
        value, known = facts[op["input"]].plain().along(1, size)
        by_group = value.reshape(op["num_groups"], -1)
        whole = np.repeat(known.reshape(by_group.shape).all(1), by_group.shape[1])
        normal = (by_group - by_group.mean(1, keepdims=True)) / np.sqrt(by_group.var(1, keepdims=True) + op["eps"])
        off = _switched_off(op, weight, facts)
        out = np.where(off, bias, normal.reshape(-1) * weight + bias)
        return _per_channel(out, whole | off, rank)

    def demand(self, op: Operation, live: Liveness) -> None:
        kept = live.kept(op.node, 1)
        groups = kept.reshape(op["num_groups"], -1)
        value, known = live.facts[op["input"]].plain().along(1, kept.size)
        counted = np.repeat(groups.any(1), groups.shape[1]) & (~known | (value != 0))
        live.require(op["input"], 1, counted, f"in the statistics of '{op.node.name}'")

    def rewrite(self, op: Operation, edit: Edit) -> None:
        kept = edit.kept(op.node, 1).reshape(op["num_groups"], -1)
        kept = kept[kept.any(1)]
        if kept.all():
            edit.set_argument(op, "num_groups", len(kept))
            return
        left, whole = int(kept.sum()), kept.size
        padding = [0, 0] * (len(op.shape) - 2)
        zeros = whole - left if len(kept) == 1 else 1
        source = edit.insert(op, aten.constant_pad_nd.default, (op["input"], [*padding, 0, zeros]), {1: left + zeros})
        if len(kept) > 1:
            rank = np.where(kept, np.cumsum(kept).reshape(kept.shape) - 1, left)
            source = _picked(op, edit, source, "places", rank.reshape(-1))
        normal = edit.insert(op, op.node.target, (source, len(kept), None, None, op["eps"]), {1: whole})
        if len(kept) > 1:
            normal = _picked(op, edit, normal, "kept", np.flatnonzero(kept.reshape(-1)))
        else:
            normal = edit.insert(op, aten.slice.Tensor, (normal, 1, 0, left))
        _scale_and_shift(op, edit, normal, 1)


def _picked(op: Operation, edit: Edit, source: fx.Node, name: str, index: NDArray[np.int64]) -> fx.Node:
    """Channels in another order, some of them more than once."""
    table = edit.add_buffer(op, f"{op.node.name}_{name}", torch.from_numpy(index.copy()))
    return edit.insert(op, aten.index_select.default, (source, 1, table), {1: index.size})


def _scale_and_shift(op: Operation, edit: Edit, normal: fx.Node, axis: int) -> None:
    """Makes the call's result `normal` times the weight plus the bias, as far as there are any."""
    rank = len(op.shape)
    steps = []
    for call, name in ((aten.mul.Tensor, "weight"), (aten.add.Tensor, "bias")):
        for parameter in optional(op.get(name)):
            if axis != rank - 1:
                spread = [-1, *(1,) * (rank - 1 - axis)]
                sizes = dict.fromkeys(range(rank), 1) | {axis: int(edit.kept(op.node, axis).sum())}
                steps.append((call, edit.insert(op, aten.view.default, (parameter, spread), sizes)))
            else:
                steps.append((call, parameter))
    if not steps:
        edit.set_call(op, aten.alias.default, (normal,))
        return
    for call, parameter in steps[:-1]:
        normal = edit.insert(op, call, (normal, parameter))
    call, parameter = steps[-1]
    edit.set_call(op, call, (normal, parameter))


@register
class LayerNormalization(Rule):
    """Mean and variance, or the mean square alone, over the last axis (Ba et al., 2016; Zhang and Sennrich, 2019).

    A channel that is zero still counts among those the statistics are divided by. So where zero channels are gone, as many
    zeros are put back behind the others for the normalisation alone: all other channels get the numbers they got before.

    For example::

        before layer_norm(x 2x5x8, [8], weight 8, None, 1e-05, False) -> 2x5x8
        after  a = constant_pad_nd(x 2x5x4, [0, 4]) -> 2x5x8
               b = layer_norm(a, [8], None, None, 1e-05, False) -> 2x5x8
               c = slice(b, 2, 0, 4) -> 2x5x4
               result = mul(c, weight 4) -> 2x5x4
    """

    operators = ("aten.layer_norm", "aten.rms_norm", "aten.native_layer_norm")

    def reason(self, op: Operation) -> str:
        if len(op.outputs) != 1:
            return "layer normalisation that gives its statistics needs all channels"
        return "" if self._over_channels(op) else "layer normalisation over several axes needs them whole"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if len(op.outputs) != 1:
            return
        rank = len(shape_of(op.node))
        axes.pass_through(op["input"], op.node, ((axis, axis) for axis in range(rank)))
        first = rank - len(op["normalized_shape"])
        for name in ("weight", "bias"):
            for parameter in optional(op.get(name)):
                axes.pass_through(parameter, op.node, ((axis, axis + first) for axis in range(rank - first)))
                if self._over_channels(op):
                    axes.producer(parameter, 0)
        if self._over_channels(op):
            axes.mixes((op["input"], first), (op.node, first))
        else:
            for axis in range(first, rank):
                axes.freeze((op.node, axis), self.reason(op))

    def constants(self, op: Operation, facts: KnownConstants) -> Any:
        if len(op.outputs) != 1:
            return super().constants(op, facts)
        rank = len(shape_of(op.node))
        if not self._over_channels(op):
            return unknown(rank)
        size = op["normalized_shape"][0]
        weight, bias = _parameter(op, "weight", 1.0, size), _parameter(op, "bias", 0.0, size)
        if bias is None:
            return unknown(rank)
        known = np.zeros(size, bool) if weight is None else _switched_off(op, weight, facts)
        if (
            op.name == "aten.rms_norm" and facts.ranges[op.node].finite
        ):  # No mean is subtracted, so that a zero stays one.
            value, given = facts[op["input"]].plain().along(rank - 1, size)
            known = known | (given & (value == 0))
        return _per_channel(bias, known, rank, rank - 1)

    def demand(self, op: Operation, live: Liveness) -> None:
        axis = len(shape_of(op.node)) - 1
        kept = live.kept(op.node, axis)
        if kept.any():
            value, known = live.facts[op["input"]].plain().along(axis, kept.size)
            live.require(op["input"], axis, ~known | (value != 0), f"in the statistics of '{op.node.name}'")

    def rewrite(self, op: Operation, edit: Edit) -> None:
        if len(op.outputs) != 1 or not self._over_channels(op):
            return
        axis = len(shape_of(op.node)) - 1
        kept = edit.kept(op.node, axis)
        if kept.all():
            return
        left, gone = int(kept.sum()), int((~kept).sum())
        padded = edit.insert(op, aten.constant_pad_nd.default, (op["input"], [0, gone]), {axis: kept.size})
        plain = {"weight": None, "bias": None}
        arguments = [plain.get(name, value) for name, value in op.arguments.items() if name != "input"]
        normal = edit.insert(op, op.node.target, (padded, *arguments), {axis: kept.size})
        cut = edit.insert(op, aten.slice.Tensor, (normal, axis, 0, left))
        _scale_and_shift(op, edit, cut, axis)

    def _over_channels(self, op: Operation) -> bool:
        return len(op.outputs) == 1 and len(op["normalized_shape"]) == 1 and is_static(op["normalized_shape"][0])
