"""Post-training quantisation of a captured network to 8-bit integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.graph_module import CapturedModule
from ...frontend.quantized_operators import check_float
from ..values import operator_name
from .bias_correction import correct_biases
from .conversion import converted
from .equalization import equalized
from .noise import NetworkNoise, Noise, layer_noise, network_noise
from .operators import LAYERS
from .preparation import prepared
from .pt2e import load_pt2e
from .ranges import RANGES
from .rounding import Rounding, float_reasons, layer_name

__all__ = ["FloatLayer", "Options", "Quantization", "QuantizedLayer", "quantize"]


@dataclass(frozen=True)
class Options:
    """How a network is quantised.

    Attributes:
        observer: how ranges of values are found: ``min-max``, ``histogram`` (least squared error) or ``percentile``.
        equalize: equal ranges of weights between layers, see `equalization`.
        correct_bias: see `bias_correction`.
        float_layers: patterns (``fnmatch``) of layers, or of their weights, that stay float.
        float_worst: how many of the layers with the lowest signal-to-noise ratio stay float, beside these.
        float_below: in dB; layers with less stay float.
        round_outputs: whether what the network gives is rounded as well, so that it may be given as codes.

    Raises:
        InputError: one of them is out of range.
    """

    observer: str = "histogram"
    equalize: bool = False
    correct_bias: bool = False
    float_layers: tuple[str, ...] = ()
    float_worst: int = 0
    float_below: float | None = None
    round_outputs: bool = False

    def __post_init__(self) -> None:
        if self.observer not in RANGES:
            raise InputError(f"there is no observer '{self.observer}'; choose one of {', '.join(RANGES)}")
        if isinstance(self.float_worst, bool) or not isinstance(self.float_worst, int) or self.float_worst < 0:
            raise InputError(f"float_worst is {self.float_worst!r}; give a whole number from 0")
        below = self.float_below
        if below is not None and (
            isinstance(below, bool) or not isinstance(below, int | float) or not math.isfinite(below)
        ):
            raise InputError(f"float_below is {below!r}; give a number of dB")


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer whose weights are integers. `decibels`: its signal-to-noise ratio, None where it has no noise."""

    name: str
    operator: str
    decibels: float | None


@dataclass(frozen=True)
class FloatLayer:
    """A layer that stays float, and why."""

    name: str
    operator: str
    reason: str


@dataclass(frozen=True, eq=False)
class Quantization:
    """What came of it.

    Attributes:
        module: the network with operators that round.
        layers: that are rounded, in order.
        floats: layers that are not.
        operators: how often other operators read values that are not rounded, by name.
        network: what rounding costs at the outputs.
        equalized: pairs of layers with equal ranges of weights.
        corrected: layers whose bias was corrected.
    """

    module: CapturedModule
    layers: tuple[QuantizedLayer, ...]
    floats: tuple[FloatLayer, ...]
    operators: dict[str, int]
    network: NetworkNoise
    equalized: int = 0
    corrected: int = 0


def quantize(
    module: CapturedModule,
    calls: Sequence[tuple[Any, ...]],
    options: Options,
    judged: Sequence[tuple[Any, ...]] | None = None,
) -> Quantization:
    """Quantises a network, whose module and tensors are left as they are.

    Args:
        module: captured, float.
        calls: calibration inputs, which it takes.
        options: how.
        judged: inputs that noise is measured on; those of the calibration if there are none.

    Raises:
        InputError: torchao is missing, nothing can be quantised, a pattern matches no layer, the network is quantised
            already, or gives NaN or infinity on the calibration inputs.
    """
    check_float(module, "quantise once")
    load_pt2e()
    judged = calls if judged is None else judged
    with stage("preparing"):
        network, pairs = prepared(module, biases=options.correct_bias), 0
        _check_patterns(network, options.float_layers)
        if options.equalize:
            network, pairs = equalized(network)
    kind = RANGES[options.observer]
    floats = float_reasons(network, lambda name: _asked(name, options.float_layers))
    quantized, rounding = converted(network, floats, calls, kind, options.round_outputs)
    noise = layer_noise(network, quantized, rounding, judged)
    kept = _insensitive(rounding, noise, options)
    if kept:
        quantized, rounding = converted(network, floats | kept, calls, kind, options.round_outputs)
        noise = layer_noise(network, quantized, rounding, judged)
    corrected = correct_biases(network, quantized, rounding, calls) if options.correct_bias else 0
    if corrected:
        noise = layer_noise(network, quantized, rounding, judged)
    layers = tuple(
        QuantizedLayer(name, _operator(node), noise[node].decibels) for node, name in rounding.layers.items()
    )
    stayed = tuple(FloatLayer(name, _operator(node), reason) for node, (name, reason) in rounding.floats.items())
    whole = network_noise(module, quantized, judged)
    return Quantization(quantized, layers, stayed, _float_operators(network, rounding), whole, pairs, corrected)


def _operator(node: fx.Node) -> str:
    return operator_name(node).removeprefix("aten.")


def _asked(name: str, patterns: Sequence[str]) -> str | None:
    pattern = next((pattern for pattern in patterns if _matches(name, pattern)), None)
    return None if pattern is None else f"asked for by '{pattern}'"


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(f"{name}.weight", pattern)


def _check_patterns(module: CapturedModule, patterns: Sequence[str]) -> None:
    names = [
        layer_name(node) for node in module.graph.nodes if node.op == "call_function" and operator_name(node) in LAYERS
    ]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            example = f"; names look like '{names[0]}'" if names else ""
            raise InputError(f"the pattern '{pattern}' matches no layer{example}")


def _insensitive(rounding: Rounding, noise: dict[fx.Node, Noise], options: Options) -> dict[fx.Node, tuple[str, str]]:
    """The layers that are to stay float for their noise, with the reason."""
    ratios = {node: found.decibels for node, found in noise.items() if found.decibels is not None}
    ranked = sorted(ratios, key=lambda node: ratios[node])
    kept: dict[fx.Node, tuple[str, str]] = {}
    for node in ranked[: options.float_worst]:
        kept[node] = rounding.layers[node], f"among the {options.float_worst} of most noise ({ratios[node]:.1f} dB)"
    for node in ranked:
        if options.float_below is not None and ratios[node] < options.float_below:
            kept.setdefault(node, (rounding.layers[node], f"{ratios[node]:.1f} dB, below {options.float_below:g}"))
    return kept


def _float_operators(module: CapturedModule, rounding: Rounding) -> dict[str, int]:
    """How often each operator beside layers reads values that are not rounded, and is no clamp behind a layer."""
    ends = {end for node, end in rounding.ends.items() if node is not end}
    rounded = {node for _, node in rounding.edges} | ends
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and node not in rounded and node not in rounding.floats:
            value = node.meta.get("val")
            if getattr(value, "is_floating_point", lambda: False)() and operator_name(node) != "getitem":
                found[_operator(node)] = found.get(_operator(node), 0) + 1
    return found
