"""Ranges of values, and the scales that follow from them.

A value x is rounded to ``q = clamp(round(x / scale) + zero, -128, 127)``, and weights to -127..127 without a zero point. Zero
itself is always exact: borders are padded with it, and pruned weights stay what they are.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
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


_MOST = 2.0**126
"""Of a value: with one that is larger the width of a range leaves float32."""


class Range(Protocol):
    """Looks at values, and then tells between which numbers they are rounded; what lies outside is cut off."""

    finite: bool
    """Whether all values were finite, and far enough from where float32 ends."""

    def look(self, values: Tensor) -> None: ...

    def ends(self) -> tuple[float, float]: ...


class MinMax:
    """From the smallest to the largest number that was seen."""

    def __init__(self) -> None:
        self.low, self.high, self.finite = 0.0, 0.0, True

    def look(self, values: Tensor) -> None:
        self._largest(values)

    def _largest(self, values: Tensor) -> float:
        """The largest magnitude of these values, by which the range is widened; 0 where there are none that count."""
        if not values.numel():
            return 0.0
        low, high = (float(end) for end in values.detach().aminmax())
        if not max(-low, high) < _MOST:
            self.finite = False
            return 0.0
        self.low, self.high = min(self.low, low), max(self.high, high)
        return max(-low, high)

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
        self._counts = np.zeros(2 * _BINS)
        self._found: tuple[float, float] | None = None

    def look(self, values: Tensor) -> None:
        largest = self._largest(values)
        if not largest:
            return
        self._found = None
        self._widen(2.0 ** math.ceil(math.log2(max(largest, _LEAST))))
        flat = values.detach().flatten().float()
        counts = torch.histc(flat, 2 * _BINS, -self._reach, self._reach).double().cpu().numpy()
        counts[_BINS] -= float((flat == 0).sum())  # They are counted with the numbers just above.
        self._counts += counts

    def _widen(self, reach: float) -> None:
        if not self._reach:
            self._reach = reach
        while self._reach < reach:
            self._reach *= 2
            self._counts = np.pad(self._counts.reshape(_BINS, 2).sum(1), _BINS // 2)

    def ends(self) -> tuple[float, float]:
        if self._found is None:
            self._found = self._best() if self._reach else (0.0, 0.0)
        return self._found

    def _best(self) -> tuple[float, float]:
        filled = np.flatnonzero(self._counts)
        centers = (filled - _BINS + 0.5) * (self._reach / _BINS)
        counts = self._counts[filled]
        low, high = self.low, self.high

        def error(low: float, high: float) -> float:
            """The sum of squared errors where values are rounded between these ends."""
            scale, zero = affine(low, high)
            rounded = np.clip(np.rint(centers / scale) + zero, LOW, HIGH)
            errors = np.square((rounded - zero) * scale - centers)
            if self._reach / _BINS > scale:  # The numbers of a bin lie anywhere in a step then.
                errors = np.where((rounded > LOW) & (rounded < HIGH), scale * scale / 12, errors)
            return float(errors @ counts)

        for _ in range(2):  # One end after the other, twice: the second hardly moves them.
            high = min(_cuts(high), key=lambda end: error(low, end)) if high else high
            low = min(_cuts(low), key=lambda end: error(end, high)) if low else low
        return low, high


class Percentile(Histogram):
    """All but the outermost numbers: a ten-thousandth of those that are not zero, on each side."""

    share = 1e-4

    def _best(self) -> tuple[float, float]:
        total = self._counts.cumsum()
        allowed = self.share * total[-1]
        width = self._reach / _BINS
        first, last = int((total <= allowed).sum()), int((total < total[-1] - allowed).sum())
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
    scale = float(np.float32(max(width / (HIGH - LOW), _LEAST)))
    return scale, max(LOW, min(HIGH, LOW - round(low / scale)))


def symmetric(weight: Tensor, axis: int, floor: Tensor | None = None) -> Tensor:
    """A scale for each position along `axis` of a weight, in float32; `floor`: what they are at least, for each of them."""
    largest = weight.detach().double().abs().movedim(axis, 0).flatten(1).amax(1)
    scales = largest / MOST
    if floor is not None:
        scales = torch.maximum(scales, floor.double())
    scales = torch.where(scales > 0, scales, torch.ones_like(scales)).clamp(min=_LEAST)
    return scales.float()
