"""How far a rounded network is from the float one: signal-to-noise ratios, of every layer and of the outputs.

A ratio is 10 log10(sum of y^2 / sum of (y - y')^2) in dB, y of the float network: 6 dB are one bit. That of a layer is of its
own result where its input, its weights and its result are rounded and all other layers are as they were, so that it tells
which layer is sensitive. That of the network has all layers rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule
from ..running import Runner
from ..values import Operation, attribute
from .rounding import Rounding
from .rounds import rounds

__all__ = ["NetworkNoise", "Noise", "layer_noise", "network_noise"]


@dataclass
class Noise:
    """Powers of a signal and of what is added to it, summed up as they come."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        exact, rounded = exact.detach().float(), rounded.detach().float()
        self.signal += float(exact.square().sum(dtype=torch.float64))
        self.noise += float((exact - rounded).square().sum(dtype=torch.float64))

    @property
    def decibels(self) -> float | None:
        """The ratio in dB; None where there is no noise at all."""
        if not self.noise:
            return None
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass(frozen=True)
class NetworkNoise:
    """Of the outputs.

    Attributes:
        decibels: signal-to-noise ratio over all outputs; None where there is no noise.
        agreement: share of inputs of which both networks give the same likeliest class; None if the output is no batch of
            classes (N, C).
        examples: how many inputs were compared.
    """

    decibels: float | None
    agreement: float | None
    examples: int


def layer_noise(
    module: CapturedModule, quantized: CapturedModule, rounding: Rounding, calls: Iterable[tuple[Any, ...]]
) -> dict[fx.Node, Noise]:
    """By call, the noise of each rounded layer of the prepared float `module`. `calls`: inputs to compare on."""
    runner = _LayerNoise(module, quantized, rounding)
    for call in track(list(calls), "comparing layers"):
        runner.values(call)
    return runner.found


class _LayerNoise(Runner):
    """Runs the float network, and at each rounded layer that layer alone as the rounded network has it."""

    def __init__(self, module: CapturedModule, quantized: CapturedModule, rounding: Rounding) -> None:
        super().__init__(module, None)
        here = {node.name: node for node in quantized.graph.nodes}
        self._quantized = quantized
        self._layers = {node: (here[node.name], rounding.ends[node], here[rounding.ends[node].name])
                        for node in rounding.layers}  # fmt: skip
        self.found = {node: Noise() for node in rounding.layers}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._layers:
            rounded, end, rounded_end = self._layers[n]
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            call = Operation(rounded)
            source = _rounded(args[0], call["input"])
            weight = _stored(self._quantized, call["weight"])
            bias = () if call.get("bias") is None else (_stored(self._quantized, call["bias"]),)
            own = n.target(source, weight, *bias, *args[2 + len(bias) :], **kwargs)  # type: ignore[operator]
            exact = value
            if end is not n:
                exact, own = (_clamped(end, each) for each in (value, own))
            reader = next((user for user in rounded_end.users if rounds(user)), None)
            self.found[n].add(exact, own if reader is None else _rounded(own, reader))
        return value


def _rounded(value: Tensor, node: fx.Node) -> Tensor:
    """A value with the error of rounding, by a call that rounds or the one behind it."""
    arguments: Any = node.args[1:5]
    scale, zero, low, high = arguments
    return (torch.round(value * (1.0 / scale)) + zero).clamp(low, high).sub(zero) * scale


def _stored(module: CapturedModule, node: fx.Node) -> Tensor:
    """A weight or bias of a rounded network, in float."""
    if node.op == "get_attr":
        stored: Tensor = attribute(module, str(node.target)).detach()
        return stored
    args = [attribute(module, str(arg.target)) if isinstance(arg, fx.Node) else arg for arg in node.args]
    value: Tensor = node.target(*args)  # type: ignore[operator]
    return value


def _clamped(node: fx.Node, value: Tensor) -> Tensor:
    """What a clamp makes of a value."""
    clamped: Tensor = node.target(value, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return clamped


def network_noise(module: fx.GraphModule, quantized: fx.GraphModule, calls: Iterable[tuple[Any, ...]]) -> NetworkNoise:
    """Of all outputs, on these inputs."""
    noise, same, rows, examples = Noise(), 0, 0, 0
    classes = True
    for call in track(list(calls), "comparing outputs"):
        exact, rounded = (_tensors(Runner(each, None).values(call)) for each in (module, quantized))
        for one, other in zip(exact, rounded, strict=True):
            noise.add(one, other)
        classes = classes and len(exact) == 1 and exact[0].dim() == 2 and exact[0].shape[1] > 1
        if classes:
            same += int((exact[0].argmax(1) == rounded[0].argmax(1)).sum())
            rows += len(exact[0])
        examples += _examples(call)
    return NetworkNoise(noise.decibels, same / rows if classes and rows else None, examples)


def _tensors(values: list[Any]) -> list[Tensor]:
    return [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]


def _examples(call: tuple[Any, ...]) -> int:
    first: Mapping[str, Any] | Any = next(
        (leaf for leaf in pytree.tree_leaves(call) if isinstance(leaf, Tensor) and leaf.dim()), None
    )
    return 1 if first is None else len(first)
