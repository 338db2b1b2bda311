"""Ranges of values, and the scales that follow from them.

A value x is rounded to ``q = clamp(round(x / scale) + zero, -128, 127)``, and weights to -127..127 without a zero point. Zero
itself is always exact: borders are padded with it, and pruned weights stay what they are.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["RANGES", "Histogram", "MinMax", "Percentile", "Range", "affine", "symmetric"]

LOW, HIGH, MOST = -128, 127, 127
_BINS = 2048
"""On each side of zero."""
_CUTS = 40
"""Ends of the range that are tried on each side: from the largest number down to half of it, and on to a tenth."""
_LEAST = 2.0**-100
"""Of a scale, so that neither it nor its inverse leaves float32."""


class Range(Protocol):
    """Looks at values, and then tells between which numbers they are rounded; what lies outside is cut off."""

    finite: bool
    """Whether all values were finite."""

    def look(self, values: Tensor) -> None: ...

    def ends(self) -> tuple[float, float]: ...


class MinMax:
    """From the smallest to the largest number that was seen."""

    def __init__(self) -> None:
        self.low, self.high, self.finite = 0.0, 0.0, True

    def look(self, values: Tensor) -> None:
        if not values.numel():
            return
        low, high = (float(end) for end in values.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            return
        self.low, self.high = min(self.low, low), max(self.high, high)

    def ends(self) -> tuple[float, float]:
        return self.low, self.high


class Histogram(MinMax):
    """The range whose squared rounding error, by a histogram of all values, is least; what lies outside counts as cut off.

    The histogram reaches as far below zero as above, to a power of two. Where a batch has larger numbers it is widened by
    joining pairs of bins, which loses nothing. Zeros, which have no error, are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reach = 0.0
        self._counts = torch.zeros(2 * _BINS, dtype=torch.float64)

    def look(self, values: Tensor) -> None:
        before = self.finite
        self.finite = True
        super().look(values)
        seen, self.finite = self.finite, self.finite and before
        largest = float(values.detach().abs().max()) if values.numel() and seen else 0.0
        if not largest:
            return
        self._widen(2.0 ** math.ceil(math.log2(largest)))
        values = values.detach().flatten().float()
        counts = torch.histc(values[values != 0], 2 * _BINS, -self._reach, self._reach)
        self._counts += counts.double().cpu()

    def _widen(self, reach: float) -> None:
        if not self._reach:
            self._reach = reach
        while self._reach < reach:
            self._reach *= 2
            pairs = self._counts.reshape(_BINS, 2).sum(1)
            self._counts = torch.cat([torch.zeros(_BINS // 2), pairs, torch.zeros(_BINS // 2)]).double()

    def ends(self) -> tuple[float, float]:
        if not self._reach:
            return 0.0, 0.0
        low, high = self.low, self.high
        for _ in range(2):  # One end after the other, twice: the second hardly moves them.
            high = min(_cuts(high), key=lambda end: self._error(low, end)) if high else high
            low = min(_cuts(low), key=lambda end: self._error(end, high)) if low else low
        return low, high

    def _error(self, low: float, high: float) -> float:
        """The sum of squared errors where values are rounded between these ends."""
        values = self._centers()
        scale, zero = affine(low, high)
        rounded = ((values / scale).round() + zero).clamp(LOW, HIGH)
        errors = ((rounded - zero) * scale - values).square()
        if self._reach / _BINS > scale:  # The numbers of a bin lie anywhere in a step then.
            inside = (rounded > LOW) & (rounded < HIGH)
            errors = torch.where(inside, torch.full_like(errors, scale * scale / 12), errors)
        return float((errors * self._counts).sum())

    def _centers(self) -> Tensor:
        width = self._reach / _BINS
        return (torch.arange(2 * _BINS, dtype=torch.float64) - _BINS + 0.5) * width


class Percentile(Histogram):
    """All but the outermost numbers: a ten-thousandth of those that are not zero, on each side."""

    share = 1e-4

    def ends(self) -> tuple[float, float]:
        if not self._reach:
            return 0.0, 0.0
        total = self._counts.cumsum(0)
        allowed = self.share * float(total[-1])
        width = self._reach / _BINS
        first = int((total <= allowed).sum())
        last = int((total < float(total[-1]) - allowed).sum())
        return max(self.low, (first - _BINS) * width), min(self.high, (last + 1 - _BINS) * width)


RANGES: dict[str, type[MinMax]] = {"min-max": MinMax, "histogram": Histogram, "percentile": Percentile}
"""By the names that a person uses."""


def _cuts(end: float) -> list[float]:
    steps = [1 - 0.5 * step / (_CUTS // 2) for step in range(_CUTS // 2)]
    return [end * share for share in [*steps, *(0.5 - 0.4 * step / (_CUTS // 2) for step in range(_CUTS // 2))]]


def affine(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point for values between these ends, of which zero is one if they do not enclose it."""
    low, high = min(low, 0.0), max(high, 0.0)
    width = high - low
    if not width:
        return 1.0, 0
    scale = float(torch.tensor(max(width / (HIGH - LOW), _LEAST), dtype=torch.float64).float())
    return scale, max(LOW, min(HIGH, LOW - round(low / scale)))


def symmetric(weight: Tensor, axis: int, floor: Tensor | None = None) -> Tensor:
    """A scale for each position along `axis` of a weight, in float32; `floor`: what they are at least, for each of them."""
    largest = weight.detach().double().abs().movedim(axis, 0).flatten(1).amax(1)
    scales = largest / MOST
    if floor is not None:
        scales = torch.maximum(scales, floor.double())
    scales = torch.where(scales > 0, scales, torch.ones_like(scales)).clamp(min=_LEAST)
    return scales.float()
