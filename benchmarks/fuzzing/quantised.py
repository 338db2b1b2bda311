"""Quantised modules: float operators between quantise and dequantise, with scales that are asked for or drawn at random."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

# It registers the operators.
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["QuantisedConv", "QuantisedLinear", "QuantisedTransposed", "RandomNetwork", "coded", "of"]

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
    """``conv2d`` of quantised weights, or ``conv1d`` along one axis; options are these functions'."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, axes: int = 2, **options: object
    ) -> None:
        super().__init__((outputs, inputs // groups, *[kernel] * axes))
        self.groups, self.options = groups, options

    def forward(self, x: Tensor) -> Tensor:
        function: Callable[..., Tensor] = F.conv1d if self.codes.dim() == 3 else F.conv2d
        return function(x, self.weight, self.bias, groups=self.groups, **self.options)


class QuantisedTransposed(nn.Module):
    """``conv_transpose2d`` of quantised weights, or ``conv_transpose1d`` along one axis: output channels of all groups share
    scales."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, groups: int = 1, axes: int = 2, **options: object
    ) -> None:
        super().__init__()
        shape = (inputs, outputs // groups, *[kernel] * axes)
        self.register_buffer("codes", torch.randint(-127, 128, shape, dtype=torch.int8))
        self.register_buffer("scales", (torch.rand(shape[1]) + 0.5) * 0.02 / (inputs // groups * kernel) ** 0.5)
        self.register_buffer("zeros", torch.zeros(shape[1], dtype=torch.int64))
        self.bias = nn.Parameter(torch.randn(outputs) * 0.3)
        self.groups, self.options = groups, options

    def forward(self, x: Tensor) -> Tensor:
        weight = Q.dequantize_per_channel(self.codes, self.scales, self.zeros, 1, -127, 127, torch.int8)
        function: Callable[..., Tensor] = F.conv_transpose1d if self.codes.dim() == 3 else F.conv_transpose2d
        return function(x, weight, self.bias, groups=self.groups, **self.options)


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
    lambda x: x.transpose(2, 3), lambda x: F.interpolate(x, scale_factor=2), lambda x: F.interpolate(x, size=(3, 7)),
    lambda x: F.pixel_shuffle(x, 2) if x.shape[1] % 4 == 0 else x, lambda x: x.split(2, 1)[-1], lambda x: x.chunk(2, 2)[0],
    lambda x: F.pad(x, (1, 1, 0, 1), mode="replicate"), lambda x: torch.stack([x, x.flip(3)], 2).flatten(1, 2),
)  # fmt: skip


def _spreads(x: Tensor, to: Tensor) -> bool:
    """Whether numbers are spread to the shape of others."""
    return all(own in (1, extent) for own, extent in zip(x.shape, to.shape, strict=True))


_MOST = 2048
"""Numbers of a value, and channels of a layer times 32: graphs are small, so that there can be many."""


class RandomNetwork(nn.Module):
    """A graph of layers, sums, products, pooling, moves and functions on codes; a seed always gives the same one.

    Input (N, C, H, W) of `shape`, float32 or where it is `of_bytes` uint8; outputs float32, one of codes and one of a last
    layer.
    """

    def __init__(self, seed: int, steps: int = 8) -> None:
        super().__init__()
        self._draw = random.Random(seed)
        torch.manual_seed(seed)
        choice = self._draw.choice
        self.shape = (choice((1, 1, 2)), choice((1, 3, 5, 16)), self._draw.randint(1, 17), self._draw.randint(1, 17))
        self.of_bytes = self._draw.random() < 0.2
        self.layers = nn.ModuleList()
        self.steps: list[Step] = []
        values = [self.example(seed)]
        self._add(values, self._rounded(self._begun() if self.of_bytes else lambda values: values[0], values))
        kinds = (
            self._layer,
            self._layer,
            self._layer,
            self._sum,
            self._product,
            self._pool,
            self._of_one,
            self._joined,
            self._line,
            self._with_constant,
            self._of_channels,
            self._transposed,
        )
        while len(self.steps) < steps:
            step = choice(kinds)(values)
            if step is not None and 0 < step(values).numel() <= _MOST:
                self._add(values, step)
        last, pooled = QuantisedLinear(values[-1].shape[1], self._draw.randint(1, 9)), values[-1].mean((2, 3))
        self.last, self._pooled = last, self._codes(pooled)

    def example(self, seed: int, factor: float = 1.0) -> Tensor:
        """An input, of a larger range with a `factor`; bytes have all there are."""
        generator = torch.Generator().manual_seed(seed)
        if self.of_bytes:
            return torch.randint(0, 256, self.shape, generator=generator, dtype=torch.uint8)
        return factor * torch.randn(self.shape, generator=generator)

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

    def _begun(self) -> Step:
        """Images of bytes as networks take them: divided, and by channel on one scale."""
        divisor = self._draw.choice((1.0, 64.0, 255.0))
        if self._draw.random() < 0.5:
            return lambda values: values[0].float() / divisor
        channels = (1, self.shape[1], 1, 1)
        mean, deviation = torch.rand(channels), torch.rand(channels) + 0.2
        return lambda values: (values[0].float() / divisor - mean) / deviation

    def _transposed(self, values: list[Tensor]) -> Step | None:
        at, draw = self._place(values), self._draw
        channels = values[at].shape[1]
        kernel, stride, groups = draw.choice((1, 2, 3, 4)), draw.choice((1, 2, 2, 3)), draw.choice((1, 1, channels))
        outputs = channels if groups == channels else groups * draw.randint(1, 8)
        options = {
            "stride": stride,
            "padding": draw.choice((0, 1)),
            "output_padding": draw.randrange(stride),
            "dilation": draw.choice((1, 1, 2)),
        }
        given = values[at].detach()
        extents = [
            (extent - 1) * stride
            - 2 * options["padding"]
            + options["dilation"] * (kernel - 1)
            + options["output_padding"]
            for extent in given.shape[2:]
        ]
        if min(extents) < 0 or outputs * 32 > _MOST:
            return None
        layer = QuantisedTransposed(channels, outputs, kernel, groups=groups, **options)
        clamp = draw.choice(_CLAMPS)
        self.layers.append(layer)
        return self._rounded(lambda values: clamp(layer(values[at])), values)

    def _sum(self, values: list[Tensor]) -> Step | None:
        at, alpha = self._place(values), self._draw.choice((1, 1, -1, 0.37))
        other = self._place(values, lambda x: _spreads(x, values[at]))
        clamp = self._draw.choice(_CLAMPS)
        first, second = (at, other) if self._draw.random() < 0.7 else (other, at)
        return self._rounded(lambda values: clamp(torch.add(values[first], values[second], alpha=alpha)), values)

    def _with_constant(self, values: list[Tensor]) -> Step | None:
        """Sums and products with numbers for channels, for places, or for all of both."""
        at, draw = self._place(values), self._draw
        shape = [draw.choice((1, extent)) for extent in values[at].shape]
        constant = self._kept(torch.randn(shape))
        function = draw.choice((torch.add, torch.mul, torch.sub, lambda a, b: b - a, lambda a, b: a / (b.abs() + 0.3)))
        clamp = draw.choice(_CLAMPS)
        return self._rounded(lambda values: clamp(function(values[at], constant())), values)

    def _of_channels(self, values: list[Tensor]) -> Step | None:
        """Functions that are others for each channel."""
        at = self._place(values)
        channels = values[at].shape[1]
        slope, offset = self._kept(torch.rand(channels)), self._kept(torch.randn(1, channels, 1, 1))
        if self._draw.random() < 0.5:
            return self._rounded(lambda values: F.prelu(values[at], slope()), values)
        return self._rounded(lambda values: torch.tanh(values[at] * slope().view(1, -1, 1, 1) + offset()), values)

    def _kept(self, constant: Tensor) -> Callable[[], Tensor]:
        """Has the network store numbers; gives what reads them."""
        name = f"constant_{len(list(self.buffers(recurse=False)))}"
        self.register_buffer(name, constant)
        return lambda: self.get_buffer(name)

    def _line(self, values: list[Tensor]) -> Step | None:
        """A layer and a window along one axis, on the pixels of an image one after the other."""
        at, draw = self._place(values), self._draw
        channels, length = values[at].shape[1], values[at][0, 0].numel()
        kernel, dilation, groups = draw.choice((1, 3, 3, 4)), draw.choice((1, 1, 2)), draw.choice((1, 1, channels))
        padding, window = draw.choice((0, kernel // 2)), draw.choice((1, 2, 3))
        reach = dilation * (kernel - 1) + 1
        outputs = channels if groups == channels else groups * draw.randint(1, 12)
        if length + 2 * padding < reach + 4 or outputs * 32 > _MOST:
            return None
        options = {"stride": draw.choice((1, 1, 2)), "padding": padding, "dilation": dilation}
        layer, clamp = QuantisedConv(channels, outputs, kernel, groups=groups, axes=1, **options), draw.choice(_CLAMPS)
        made = layer(values[at].flatten(2))
        if made.shape[2] < window:
            return None
        self.layers.append(layer)
        codes = self._codes(made)
        if draw.random() < 0.5:
            return lambda values: F.max_pool1d(coded(clamp(layer(values[at].flatten(2))), *codes), window).unsqueeze(2)

        def mean(values: list[Tensor]) -> Tensor:
            return F.avg_pool1d(coded(clamp(layer(values[at].flatten(2))), *codes), window, 1).unsqueeze(2)

        return self._rounded(mean, values)

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
        if self._draw.random() < 0.2:
            axes = self._draw.choice(((1,), (3,), (1, 2), (1, 2, 3)))
            return self._rounded(lambda values: values[at].mean(axes, keepdim=True), values)
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
