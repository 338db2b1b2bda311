"""Quantise and dequantise in float32, as PyTorch has them: for what is not computed on codes; and which others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.export import ExportedProgram

from ...passes.integers.scheme import DEQUANTIZE, PER_CHANNEL, QUANTIZE
from .arithmetic import Decomposition
from .unsupported import UnsupportedError

__all__ = ["QUANTISED", "refused_scales"]


def quantize(value: Tensor, scale: float, zero: int, low: int, high: int, dtype: torch.dtype) -> Tensor:
    return (torch.round(value * (1.0 / scale)) + zero).clamp(low, high).to(dtype)


def dequantize(
    codes: Tensor, scale: float, zero: int, low: int, high: int, dtype: torch.dtype, *, out_dtype: Any = None
) -> Tensor:
    return (codes.to(out_dtype or torch.float32) - zero) * scale


def dequantize_channels(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    axis: int,
    low: int,
    high: int,
    dtype: torch.dtype,
    *,
    out_dtype: Any = None,
) -> Tensor:
    shape = [1] * codes.dim()
    shape[axis] = -1
    value = codes.to(out_dtype or torch.float32)
    if zeros is not None:
        value = value - zeros.to(value.dtype).view(shape)
    return value * scales.to(value.dtype).view(shape)


QUANTISED: Mapping[OpOverload, Decomposition] = {
    QUANTIZE: quantize,
    DEQUANTIZE: dequantize,
    PER_CHANNEL: dequantize_channels,
}
"""By operator."""

_LIBRARIES = ("quantized_decomposed", "torchao", "quantized")
_WHY = {
    "_int_mm": "multiplies integers whose scales are found in every call (dynamic quantisation)",
    "choose": "finds scales in every call (dynamic quantisation)",
    "per_token": "has a scale for each token",
    "group": "has a scale for each group",
    "per_channel": "has a scale for each channel of a value",
    "affine": "is an operator of torchao's tensor types",
    "per_tensor": "has a scale that is computed in every call",
}
"""By a part of an operator's name, the first that is found."""
_INSTEAD = (
    "quantise with reconvene.quantize, or PT2E: what compiles are int8 or uint8 values with one known scale, and int8 weights"
    " with one for each output channel"
)


def refused_scales(exported: ExportedProgram) -> UnsupportedError | None:
    """The refusal of the first operator that quantises in a way that is not compiled; None if there is none."""
    for node in exported.graph.nodes:
        name = str(node.target)
        library = getattr(node.target, "namespace", "") in _LIBRARIES or node.target is torch.ops.aten._int_mm.default
        # Weights with scales for groups are what they stand for, and their product is in float32, which is named.
        if not library or node.target in QUANTISED or "dequantize_per_channel_group" in name:
            continue
        why = next((why for part, why in _WHY.items() if part in name), "is not among what is compiled of its library")
        return UnsupportedError(node, exported, why, _INSTEAD)
    return None
