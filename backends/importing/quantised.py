"""Quantise and dequantise in float32, as PyTorch has them: for what is not computed on codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from ...passes.integers.scheme import DEQUANTIZE, PER_CHANNEL, QUANTIZE
from .arithmetic import Decomposition

__all__ = ["QUANTISED"]


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
