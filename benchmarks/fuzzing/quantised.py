"""Quantised modules: float operators between quantise and dequantise, with scales that are asked for or drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

# It registers the operators.
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["QuantisedConv", "QuantisedLinear", "RandomNetwork", "coded", "of"]

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


Step = Callable[[list[Tensor]], Tensor]
"""Gives a further value from those before it, of which the first is the input."""

_CLAMPS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu, F.relu6, lambda x: x.clamp(-0.5, 1.0), lambda x: x,
)  # fmt: skip
_FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.hardswish, torch.sigmoid, F.gelu, torch.tanh, lambda x: F.leaky_relu(x, 0.2), lambda x: x * torch.sigmoid(x),
    lambda x: 1.5 - x,
)  # fmt: skip
_MOVES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x[:, x.shape[1] // 2 :], lambda x: x.flip(1), lambda x: F.pad(x, (1, 0, 2, 1)), lambda x: x[:, :, ::2],
    lambda x: F.pad(x, (0, 1, 0, 1), value=0.5), lambda x: F.channel_shuffle(x, 2) if x.shape[1] % 2 == 0 else x,
    lambda x: x.transpose(2, 3),
)  # fmt: skip
_MOST = 2048
"""Numbers of a value, and channels of a layer times 32: graphs are small, so that there can be many."""


class RandomNetwork(nn.Module):
    """A graph of layers, sums, products, pooling, moves and functions on codes; a seed always gives the same one.

    Input (N, C, H, W) of `shape`; outputs float32, one of codes and one of a last layer.
    """

    def __init__(self, seed: int, steps: int = 8) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        torch.manual_seed(seed)
        choice = self._draw.choice
        self.shape = (choice((1, 1, 2)), choice((1, 3, 5, 16)), self._draw.randint(1, 17), self._draw.randint(1, 17))
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        values = [torch.randn(self.shape)]
        self._add(values, self._rounded(lambda values: values[0], values))
        kinds = (
            self._layer,
            self._layer,
            self._layer,
            self._sum,
            self._product,
            self._pool,
            self._of_one,
            self._joined,
        )
        while len(self.steps) < steps:
            step = choice(kinds)(values)
            if step is not None and 0 < step(values).numel() <= _MOST:
                self._add(values, step)
        last, pooled = QuantisedLinear(values[-1].shape[1], self._draw.randint(1, 9)), values[-1].mean((2, 3))
        self.last, self._pooled = last, self._codes(pooled)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values = [x]
        for step in self.steps:
            values.append(step(values))
        return values[-1], self.last(coded(values[-1].mean((2, 3)), *self._pooled))

    def _add(self, values: list[Tensor], step: Step) -> None:
        self.steps.append(step)
        values.append(step(values).detach())

    def _codes(self, x: Tensor) -> tuple[float, int]:
        """Scale and zero for values like these, of which some may be beyond the range."""
        low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0, 1e-3)
        scale = (high - low) / 255 * self._draw.choice((0.7, 1.0, 1.5))
        return scale, max(-128, min(127, round(-128 - low / scale) + self._draw.choice((0, 0, 3, -40))))

    def _rounded(self, step: Step, values: list[Tensor]) -> Step:
        codes = self._codes(step(values))
        return lambda values: coded(step(values), *codes)

    def _place(self, values: list[Tensor], fits: Callable[[Tensor], bool] = lambda x: True) -> int:
        """One of the values that fit, the last ones more often than the first; of none 0, which is the input."""
        places = [place for place in range(1, len(values)) if fits(values[place])]
        return self._draw.choice([*places, *places[-2:]]) if places else 0

    def _layer(self, values: list[Tensor]) -> Step | None:
        draw = self._draw
        at = self._place(values)
        channels, *area = values[at].shape[1:]
        kernel, dilation, groups = (
            draw.choice((1, 1, 3, 3, 5)),
            draw.choice((1, 1, 2)),
            draw.choice((1, 1, channels, 2)),
        )
        padding = draw.choice((0, kernel // 2))
        outputs = channels if groups == channels else groups * draw.randint(1, 12)
        if channels % groups or min(area) + 2 * padding < dilation * (kernel - 1) + 1 or outputs * 32 > _MOST:
            return None
        options = {"stride": draw.choice((1, 1, 2)), "padding": padding, "dilation": dilation}
        layer, clamp = QuantisedConv(channels, outputs, kernel, groups=groups, **options), draw.choice(_CLAMPS)
        self.layers.append(layer)
        return self._rounded(lambda values: clamp(layer(values[at])), values)

    def _sum(self, values: list[Tensor]) -> Step | None:
        at = self._place(values)
        other = self._place(values, lambda x: x.shape == values[at].shape)
        clamp = self._draw.choice(_CLAMPS)
        return self._rounded(lambda values: clamp(values[at] + values[other]), values)

    def _product(self, values: list[Tensor]) -> Step | None:
        at = self._place(values)
        if self._draw.random() < 0.5:
            other = self._place(values, lambda x: x.shape == values[at].shape)
            return self._rounded(lambda values: values[at] * values[other], values)
        other = self._place(values, lambda x: x.shape[:2] == values[at].shape[:2])
        gate = self._rounded(lambda values: values[other].mean((2, 3), keepdim=True), values)
        return self._rounded(lambda values: values[at] * gate(values), values)

    def _pool(self, values: list[Tensor]) -> Step | None:
        at = self._place(values)
        window, stride, padding = self._draw.choice((2, 3)), self._draw.choice((1, 2)), self._draw.choice((0, 1))
        if min(values[at].shape[2:]) + 2 * padding < window:
            return None
        if self._draw.random() < 0.5:
            return lambda values: F.max_pool2d(values[at], window, stride, padding)
        return self._rounded(lambda values: F.avg_pool2d(values[at], window, stride, padding), values)

    def _of_one(self, values: list[Tensor]) -> Step | None:
        at, function = self._place(values), self._draw.choice((*_FUNCTIONS, *_MOVES))
        return self._rounded(lambda values: function(values[at]), values) if function(values[at]).numel() else None

    def _joined(self, values: list[Tensor]) -> Step | None:
        at = self._place(values)
        batch, _, *area = values[at].shape
        other = self._place(values, lambda x: (x.shape[0], *x.shape[2:]) == (batch, *area))
        codes = self._codes(values[at])
        return lambda values: coded(torch.cat([coded(values[at], *codes), coded(values[other], *codes)], 1), *codes)
