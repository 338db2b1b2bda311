"""Quantised modules by hand: float operators between quantise and dequantise, with scales that are asked for."""

from __future__ import annotations

from collections.abc import Callable

import torch

# It registers the operators.
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["QuantisedConv", "QuantisedLinear", "coded"]

Q = torch.ops.quantized_decomposed


def coded(
    x: Tensor, scale: float, zero: int, low: int = -128, high: int = 127, dtype: torch.dtype = torch.int8
) -> Tensor:
    """`x` through codes and back."""
    codes = Q.quantize_per_tensor(x, scale, zero, low, high, dtype)
    return Q.dequantize_per_tensor(codes, scale, zero, low, high, dtype)


class _Weighted(nn.Module):
    """A layer of int8 weights with a scale for each output channel."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        fan = 1
        for extent in shape[1:]:
            fan *= extent
        self.register_buffer("codes", torch.randint(-127, 128, shape, dtype=torch.int8))
        self.register_buffer("scales", (torch.rand(shape[0]) + 0.5) * 0.02 / fan**0.5)
        self.register_buffer("zeros", torch.zeros(shape[0], dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(shape[0]) * 0.3)

    @property
    def weight(self) -> Tensor:
        return Q.dequantize_per_channel(self.codes, self.scales, self.zeros, 0, -127, 127, torch.int8)


class QuantisedConv(_Weighted):
    """``conv2d`` of quantised weights; options are `F.conv2d`'s."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, **options: object) -> None:
        super().__init__((outputs, inputs // groups, kernel, kernel))
        self.groups, self.options = groups, options

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, groups=self.groups, **self.options)  # type: ignore[arg-type]


class QuantisedLinear(_Weighted):
    """``linear`` of quantised weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def of(function: Callable[..., Tensor], *sides: tuple[float, int], result: tuple[float, int] = (0.02, 3)) -> nn.Module:
    """A module that gives a function of quantised inputs, quantised."""

    class Quantised(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            values = [coded(value, *side) for value, side in zip(inputs, sides, strict=True)]
            return coded(function(*values), *result)

    return Quantised()
