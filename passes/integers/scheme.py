"""What quantise and dequantise nodes say: scale, zero and range of codes, always as those of int8."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# It registers the operators that quantised programs are written in.
import torch.ao.quantization.fx._decomposed
from torch import fx

__all__ = [
    "DEQUANTIZE",
    "OF_TENSORS",
    "PER_CHANNEL",
    "QUANTIZE",
    "Codes",
    "codes_of_node",
    "gives_float32",
    "has_codes",
    "rounded",
]

Q = torch.ops.quantized_decomposed
QUANTIZE = Q.quantize_per_tensor.default
DEQUANTIZE = Q.dequantize_per_tensor.default
PER_CHANNEL = Q.dequantize_per_channel.default
OF_TENSORS = {
    Q.quantize_per_tensor.tensor: QUANTIZE,
    Q.quantize_per_tensor.tensor2: QUANTIZE,
    Q.dequantize_per_tensor.tensor: DEQUANTIZE,
    Q.dequantize_per_tensor.tensor2: DEQUANTIZE,
}
"""Forms whose scale, zero and ends are tensors, and what they are where these are known."""

_MOVED = {torch.int8: 0, torch.uint8: -128}
"""What is added to the codes of a type so that they are int8."""


@dataclass(frozen=True)
class Codes:
    """How numbers are written: ``scale * (code - zero)``, codes from `low` to `high`, int8.

    Attributes:
        moved: what was added to the codes of the graph.
    """

    scale: float
    zero: int
    low: int = -128
    high: int = 127
    moved: int = 0

    @property
    def inverse(self) -> float:
        """Of the scale, as a float32: what values are multiplied by."""
        return rounded(1.0 / self.scale)

    def of(self, value: float) -> int:
        """The code of a number; infinities give an end of the range."""
        if math.isinf(value):
            return self.low if value < 0 else self.high
        steps = torch.tensor(value, dtype=torch.float32) * self.inverse
        return max(self.low, min(self.high, int(torch.round(steps)) + self.zero))

    def within(self, low: float, high: float) -> Codes:
        """Those of numbers that were clamped to a range before."""
        return Codes(self.scale, self.zero, max(self.low, self.of(low)), min(self.high, self.of(high)), self.moved)


def codes_of_node(node: fx.Node) -> Codes | None:
    """Of a quantise or dequantise node of a whole tensor; None for codes that do not fit in a byte, or of other floats."""
    if not gives_float32(node):
        return None
    given: Sequence[Any] = node.args
    _, scale, zero, low, high, dtype = given[:6]
    moved = _MOVED.get(dtype) if isinstance(dtype, torch.dtype) else None
    if moved is None or not isinstance(scale, float) or not math.isfinite(scale) or scale <= 0:
        return None
    zero, low, high = (int(number) + moved for number in (zero, low, high))
    fits = -128 <= low <= high <= 127 and -128 <= zero <= 127
    return Codes(scale, zero, low, high, moved) if fits else None


def gives_float32(node: fx.Node) -> bool:
    """Whether what a dequantise node gives is float32, as it is unless another type is asked for."""
    return node.kwargs.get("out_dtype") in (None, torch.float32)


def has_codes(graph: fx.Graph) -> bool:
    """Whether anything is quantised in a graph."""
    return any(node.op == "call_function" and _is_quantised(node.target) for node in graph.nodes)


def rounded(value: float) -> float:
    """The float32 nearest to a number."""
    return float(torch.tensor(value, dtype=torch.float64).float())


def _is_quantised(target: Any) -> bool:
    return getattr(target, "namespace", "") == "quantized_decomposed"
