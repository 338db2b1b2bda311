"""Random networks: a list of small numbers becomes a graph of layers whose shapes always fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["STEPS", "RandomNetwork"]

Tensor = torch.Tensor
Step = tuple[str, int, int, int]
"""What to do, two numbers that choose operands, and one that chooses settings."""

_ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    torch.relu, torch.sigmoid, F.hardsigmoid, F.softplus, torch.cos, F.silu, F.hardswish, torch.tanh, F.leaky_relu, torch.neg,
)  # fmt: skip
_WIDTHS = (2, 3, 4, 6, 8)


class RandomNetwork(nn.Module):
    """Runs its steps in order on a growing list of feature maps; what nobody read goes into the outputs."""

    def __init__(self, steps: Sequence[Step], ending: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.plan: list[tuple[Callable[..., Any], tuple[int, ...], tuple[str, ...]]] = []
        self.shapes: list[tuple[int, int, int]] = [(3, 8, 8)]
        self._read: set[int] = set()
        for step in steps:
            self._grow(*step)
        self.ending = ending % 4
        last = [place for place in range(1, len(self.shapes)) if place not in self._read][-3:] or [len(self.shapes) - 1]
        self.last = last
        for place in last:
            channels, height, width = self.shapes[place]
            if self.ending == 0:
                self.layers[f"head{place}"] = nn.Linear(channels, 3)
            elif self.ending == 1:
                self.layers[f"head{place}"] = nn.Linear(channels * height * width, 3)
            elif self.ending == 2:
                self.layers[f"head{place}"] = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        values = [x]
        for call, operands, names in self.plan:
            values.append(call(*(values[place] for place in operands), *(self.layers[name] for name in names)))
        return tuple(self._finished(values[place], f"head{place}") for place in self.last)

    def _finished(self, value: Tensor, head: str) -> Tensor:
        if self.ending == 0:
            return self.layers[head](value.mean((2, 3)))
        if self.ending == 1:
            return self.layers[head](value.flatten(1))
        return self.layers[head](value) if self.ending == 2 else value.amax((2, 3))

    # Making steps -------------------------------------------------------------------------------------------------

    def _grow(self, kind: str, first: int, second: int, setting: int) -> None:
        a = max(0, len(self.shapes) - 1 - first % 4)
        made = getattr(self, f"_{kind}")(a, second, setting)
        if made is None:
            return
        call, operands, *names = made
        layers = [self.layers[name] for name in names]
        with torch.no_grad():
            shape = call(*(torch.ones(2, *self.shapes[place]) for place in operands), *layers).shape
        if len(shape) != 4 or min(shape) < 1 or shape[2] > 24 or shape[1] > 32:
            return
        self.plan.append((call, operands, tuple(names)))
        self.shapes.append(tuple(shape[1:]))
        self._read.update(operands)

    def _layer(self, layer: nn.Module) -> str:
        name = f"layer{len(self.layers)}"
        self.layers[name] = layer
        return name

    def _alike(self, a: int, second: int, axes: tuple[int, ...] = (0, 1, 2)) -> int | None:
        """A value of the same shape along `axes`, another one if there is one."""
        fits = [
            place
            for place, shape in enumerate(self.shapes)
            if place and all(shape[axis] == self.shapes[a][axis] for axis in axes)
        ]
        return fits[-1 - second % len(fits)] if fits else None

    def _conv(self, a: int, second: int, setting: int) -> Any:
        channels, height, _ = self.shapes[a]
        width = _WIDTHS[second % len(_WIDTHS)]
        kernel = min((1, 3, 2, 3)[setting % 4], height)
        groups = (1, 1, math.gcd(channels, width), channels if width % channels == 0 else 1)[second // 5 % 4]
        padding: Any = (0, kernel // 2, 1)[setting // 4 % 3]
        mode = ("zeros", "zeros", "zeros", "replicate")[setting // 12 % 4]
        options = {
            "stride": (1, 2)[setting // 48 % 2],
            "groups": groups,
            "bias": setting % 5 != 0,
            "padding_mode": mode,
        }
        return _applied, (a,), self._layer(nn.Conv2d(channels, width, kernel, padding=padding, **options))

    def _transposed(self, a: int, second: int, setting: int) -> Any:
        channels = self.shapes[a][0]
        width = _WIDTHS[second % len(_WIDTHS)]
        groups = (1, math.gcd(channels, width))[second // 5 % 2]
        stride = (1, 2)[setting % 2]
        layer = nn.ConvTranspose2d(
            channels, width, (1, 2, 3)[setting // 2 % 3], stride, output_padding=stride - 1, groups=groups
        )
        return _applied, (a,), self._layer(layer)

    def _again(self, a: int, second: int, setting: int) -> Any:
        """A layer that is already there, once more."""
        fits = [
            name
            for name, layer in self.layers.items()
            if getattr(layer, "in_channels", getattr(layer, "num_features", None)) == self.shapes[a][0]
            and not (isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > self.shapes[a][1])
        ]
        return (_applied, (a,), fits[second % len(fits)]) if fits else None

    def _norm(self, a: int, second: int, setting: int) -> Any:
        channels = self.shapes[a][0]
        kinds: tuple[Callable[[], nn.Module], ...] = (
            lambda: nn.BatchNorm2d(channels),
            lambda: nn.BatchNorm2d(channels, affine=False),
            lambda: nn.GroupNorm(math.gcd(channels, 2), channels),
            lambda: nn.InstanceNorm2d(channels, affine=True),
            lambda: nn.BatchNorm2d(channels),
        )
        chosen = setting % len(kinds)
        if chosen in (2, 3) and self.shapes[a][1] * self.shapes[a][2] < 4:
            return None
        return _applied, (a,), self._layer(kinds[chosen]())

    def _activation(self, a: int, second: int, setting: int) -> Any:
        if setting % 11 == 10:
            return _applied, (a,), self._layer(nn.PReLU(self.shapes[a][0] if second % 2 else 1))
        return _ACTIVATIONS[setting % len(_ACTIVATIONS)], (a,)

    def _join(self, a: int, second: int, setting: int) -> Any:
        b = self._alike(a, second)
        calls: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
            torch.add, torch.mul, torch.sub, torch.maximum, lambda x, y: torch.where(x > 0, x, y), torch.add,
        )  # fmt: skip
        return None if b is None else (calls[setting % len(calls)], (a, b))

    def _cat(self, a: int, second: int, setting: int) -> Any:
        b = self._alike(a, second, (1, 2))
        if b is None:
            return None
        return (lambda x, y: torch.cat([x, y], 1)), (a, b)

    def _gate(self, a: int, second: int, setting: int) -> Any:
        channels = self.shapes[a][0]
        last = (torch.sigmoid, F.hardsigmoid)[setting % 2]

        def gated(x: Tensor, squeeze: nn.Module, excite: nn.Module) -> Tensor:
            return x * last(excite(torch.relu(squeeze(F.adaptive_avg_pool2d(x, 1)))))

        return gated, (a,), self._layer(nn.Conv2d(channels, 2, 1)), self._layer(nn.Conv2d(2, channels, 1))

    def _part(self, a: int, second: int, setting: int) -> Any:
        channels = self.shapes[a][0]
        if channels < 2:
            return None
        parts, place = min(2 + setting % 2, channels), second
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: x.chunk(parts, 1)[place % len(x.chunk(parts, 1))],
            lambda x: torch.cat(x.chunk(parts, 1)[::-1], 1),
            lambda x: x[:, 1:],
            lambda x: x[:, ::2],
            lambda x: x.split([1, channels - 1], 1)[1],
            lambda x: x.flip(3),
            lambda x: torch.cat([x[:, :1].relu(), x[:, 1:]], 1),
        )
        return calls[setting // 2 % len(calls)], (a,)

    def _shuffle(self, a: int, second: int, setting: int) -> Any:
        channels, height, width = self.shapes[a]
        groups = next((g for g in (2, 3) if channels % g == 0), None)
        if groups is None:
            return None
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: (
                x.view(2, groups, channels // groups, height, width).transpose(1, 2).reshape(2, channels, height, width)
            ),
            lambda x: F.channel_shuffle(x, groups),
            lambda x: x.reshape(-1, groups, channels // groups, height, width).sum(1),
            lambda x: x.reshape(2, groups, channels // groups, height, width).unbind(1)[0],
            lambda x: F.glu(x, 1) if channels % 2 == 0 else x,
            lambda x: (
                x.reshape(2, channels, height * width).permute(0, 2, 1).transpose(1, 2).reshape(2, -1, height, width)
            ),
        )
        return calls[setting % len(calls)], (a,)

    def _pool(self, a: int, second: int, setting: int) -> Any:
        if min(self.shapes[a][1:]) < 3:
            return None
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: F.max_pool2d(x, 2),
            lambda x: F.max_pool2d(x, 3, 2, 1),
            lambda x: F.avg_pool2d(x, 2),
            lambda x: F.avg_pool2d(x, 3, 1, 1),
            lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            lambda x: F.adaptive_avg_pool2d(x, 3),
            lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        )
        return calls[setting % len(calls)], (a,)

    def _resize(self, a: int, second: int, setting: int) -> Any:
        if self.shapes[a][1] > 10 or min(self.shapes[a][1:]) < 2:
            return None
        channels = self.shapes[a][0]
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: F.pad(x, (1, 1, 1, 1)),
            lambda x: F.pad(x, (0, 1, 2, 0)),
            lambda x: F.pad(x, (1, 0, 0, 1), value=0.5),
            lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
            lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), value=0.3 * (second % 2)),
            lambda x: F.interpolate(x, scale_factor=2),
            lambda x: F.interpolate(x, size=(5, 5), mode="bilinear"),
            lambda x: x[:, :, 1:, :-1],
            lambda x: F.pixel_shuffle(x, 2) if channels % 4 == 0 else x,
            lambda x: F.pixel_unshuffle(x, 2) if x.shape[2] % 2 == x.shape[3] % 2 == 0 else x,
            lambda x: (
                torch.cat([x[:, :, ::2, ::2], x[:, :, : 2 * (x.shape[2] // 2) : 2, ::2]], 1)
                if x.shape[2] % 2 == 0
                else x
            ),
        )
        return calls[setting % len(calls)], (a,)

    def _number(self, a: int, second: int, setting: int) -> Any:
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: x * 0.5,
            lambda x: x + 0.3,
            lambda x: 1.0 - x,
            lambda x: x * x,
            lambda x: x.clamp(-0.5, 0.5),
            lambda x: x + x.mean((2, 3), keepdim=True),
            lambda x: x.mean((2, 3), keepdim=True).expand_as(x),
            lambda x: x + x.sum(1, keepdim=True),
            lambda x: x.amax(1, keepdim=True) * x,
            lambda x: x.softmax(1),
            lambda x: torch.maximum(x, torch.zeros_like(x)),
        )
        return calls[setting % len(calls)], (a,)

    def _inplace(self, a: int, second: int, setting: int) -> Any:
        calls: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: (x * 1.0).relu_(),
            lambda x: (x + 0.0).add_(0.3).mul_(0.5),
            lambda x: _written(x, slice(0, 1)),
            lambda x: _written(x, slice(1, None)),
            lambda x: _half(x),
        )
        return calls[setting % len(calls)], (a,)

    def _last_axis(self, a: int, second: int, setting: int) -> Any:
        layer = self._layer(nn.Linear(self.shapes[a][0], _WIDTHS[second % len(_WIDTHS)]))
        calls: tuple[Callable[[Tensor, nn.Module], Tensor], ...] = (
            lambda x, layer: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            lambda x, layer: layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:]),
            lambda x, layer: layer(x.movedim(1, -1)).movedim(-1, 1).relu(),
        )
        return calls[setting % len(calls)], (a,), layer

    def _plane(self, a: int, second: int, setting: int) -> Any:
        """A stored tensor that is added or multiplied: one per channel, per place, or both."""
        channels, height, width = self.shapes[a]
        shape = ((1, channels, 1, 1), (channels, height, width), (1, 1, height, width))[setting % 3]
        holder = nn.Module()
        holder.value = nn.Parameter(torch.randn(shape))
        call = (lambda x, plane: x * plane.value) if second % 2 else (lambda x, plane: x + plane.value)
        return call, (a,), self._layer(holder)


def _applied(x: Tensor, layer: nn.Module) -> Tensor:
    result: Tensor = layer(x)
    return result


def _written(x: Tensor, part: slice) -> Tensor:
    """A view of a fresh tensor is changed in place; then both are read."""
    fresh = x * 1.5
    fresh[:, part].add_(0.25)
    return fresh + 1.0


def _half(x: Tensor) -> Tensor:
    """An in-place activation of something that was read before."""
    fresh = x + 0.1
    before = fresh * 2.0
    fresh.relu_()
    return before + fresh


STEPS = (
    "conv", "conv", "conv", "conv", "norm", "norm", "activation", "activation", "join", "join", "cat", "gate", "part",
    "shuffle", "pool", "resize", "number", "inplace", "last_axis", "plane", "transposed", "again",
)  # fmt: skip
