"""Bias correction: rounding moves the mean of a layer's channels, and the bias takes that back.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias Correction",
ICCV 2019, section 4.2 and appendix D (empirical): layer by layer, in order, the mean of each output channel, before the
activation, is compared with that of the float network, and the difference is added to the bias. The inputs of a layer are
those that the layers before it, rounded and corrected, give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule
from ..running import Runner
from ..values import Operation, attribute, operator_name
from .rounding import Rounding

__all__ = ["correct_biases"]


def correct_biases(
    module: CapturedModule, quantized: CapturedModule, rounding: Rounding, calls: Sequence[tuple[Any, ...]]
) -> int:
    """Changes the biases of `quantized`, in which every layer has one, and returns of how many layers.

    Args:
        module: prepared and in float.
        quantized: made of it; the inputs of all calls go through it together, node by node.
        rounding: of `module`.
        calls: calibration inputs.
    """
    wanted = _Means(module, {node.name: _axis(node) for node in rounding.layers})
    for call in track(calls, "means of the float network"):
        wanted.values(call)
    runs = [_begun(quantized, call) for call in calls]
    done: set[str] = set()
    with torch.no_grad():
        for node in track(list(quantized.graph.nodes), "correcting biases"):
            if node.op == "output":
                break
            for run in runs:
                run.env[node] = run.run_node(node)
            # A layer that is called twice has one bias; its first call decides.
            if node.name in wanted.sums and (bias := str(Operation(node)["bias"].target)) not in done:
                attribute(quantized, bias).add_(_corrected(node, runs, wanted.mean(node.name)))
                done.add(bias)
            for run in runs:
                for dead in run.user_to_last_uses.get(node, []):
                    del run.env[dead]
    return len(done)


def _begun(quantized: CapturedModule, call: tuple[Any, ...]) -> fx.Interpreter:
    """A run that is made node by node."""
    run = fx.Interpreter(quantized, garbage_collect_values=True)
    run.env = {}
    run.args_iter = iter(pytree.tree_leaves(call))
    return run


def _corrected(node: fx.Node, runs: Sequence[fx.Interpreter], wanted: Tensor) -> Tensor:
    """What the bias of a layer lacks; its results are changed by it."""
    axis = _axis(node)
    change = (wanted - _mean([run.env[node] for run in runs], axis)).float()
    for run in runs:
        run.env[node] = run.env[node] + _along(change, run.env[node].dim(), axis)
    return change


class _Means(Runner):
    """Keeps the mean of every channel of some values."""

    def __init__(self, module: CapturedModule, axes: dict[str, int]) -> None:
        super().__init__(module, None)
        self._axes = axes
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self._axes:
            total, count = _total(value, self._axes[n.name])
            before = self.sums.get(n.name)
            self.sums[n.name] = (total, count) if before is None else (before[0] + total, before[1] + count)
        return value

    def mean(self, name: str) -> Tensor:
        total, count = self.sums[name]
        return total / count


def _axis(node: fx.Node) -> int:
    return -1 if operator_name(node) == "aten.linear" else 1


def _total(value: Tensor, axis: int) -> tuple[Tensor, int]:
    flat = value.detach().movedim(axis, 0).flatten(1)
    return flat.double().sum(1), flat.shape[1]


def _mean(values: Sequence[Tensor], axis: int) -> Tensor:
    totals = [_total(value, axis) for value in values]
    return torch.stack([total for total, _ in totals]).sum(0) / sum(count for _, count in totals)


def _along(change: Tensor, rank: int, axis: int) -> Tensor:
    return change if axis == -1 else change.view(-1, *[1] * (rank - 2))
