"""Fourier transforms as matrix products with stored tables, which our kernels take as they take a linear layer.

A length up to `_DIRECT_LENGTH` is one product. A longer one that has divisors is two transforms of their lengths with a turn
between (Cooley and Tukey, 1965), so that tables and products stay small; one that is prime is one product, too. Tables come
from angles in float64 that are reduced exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload

from .arithmetic import Decomposition
from .complex_pairs import paired, parts
from .tables import stored

__all__ = ["SPECTRA"]

A = torch.ops.aten

_DIRECT_LENGTH = 128
"""The longest transform that is one product: 64 KB for each of its tables, and no slower than two with a turn between."""

_MAX_PRIME_LENGTH = 4096
"""The longest prime length; its tables have 64 MB."""

_COSINE, _SINE = 0, 1

Pair = tuple[Tensor, Tensor | None]
"""A real and an imaginary part; None for no imaginary part."""


def _turns(part: int, numerators: np.ndarray[Any, Any], length: int, bits: int) -> np.ndarray[Any, Any]:
    """Cosines or sines of so many parts of a turn. Quarters of a turn are exact."""
    reduced = numerators % length
    angles = 2 * np.pi * (reduced / length)
    values = np.cos(angles) if part == _COSINE else np.sin(angles)
    quarter = (4 * reduced) % length == 0
    return np.where(quarter, np.round(values), values).astype(f"float{bits}")


@stored
def fourier_table(part: int, length: int, count: int, sign: int, bits: int) -> np.ndarray[Any, Any]:
    """``(length, count)``: cosines or sines of entry times frequency, for the first `count` frequencies."""
    return _turns(part, sign * np.outer(np.arange(length), np.arange(count)), length, bits)


@stored
def fourier_twist(part: int, rows: int, columns: int, sign: int, bits: int) -> np.ndarray[Any, Any]:
    """``(rows, columns)``: what stands between the two steps of a transform of ``rows * columns`` entries."""
    return _turns(part, sign * np.outer(np.arange(rows), np.arange(columns)), rows * columns, bits)


@stored
def half_spectrum_table(part: int, length: int, bits: int) -> np.ndarray[Any, Any]:
    """``(length // 2 + 1, length)``: from half of a spectrum back; all but the ends stand for two frequencies."""
    count = length // 2 + 1
    table = _turns(part, np.outer(np.arange(count), np.arange(length)), length, 64)
    twice = np.full((count, 1), 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[-1] = 1
    return (table * twice).astype(f"float{bits}")


def _bits(x: Tensor) -> int:
    return 64 if x.dtype == torch.float64 else 32


def _divisor(length: int) -> int:
    """The greatest that is not above the root; 1 of a prime."""
    return next((size for size in range(math.isqrt(length), 1, -1) if length % size == 0), 1)


def _transformed(x: Pair, sign: int, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The first `count` frequencies along the last axis, of exponents with this sign."""
    length = int(x[0].shape[-1])
    count = count or length
    rows = _divisor(length)
    if length <= _DIRECT_LENGTH or rows == 1:
        if length > _MAX_PRIME_LENGTH:
            raise ValueError(
                f"a Fourier transform of the prime length {length} would need tables of {length * length * 8 >> 20} MB;"
                f" pad it to a length that has small divisors, such as {2 ** length.bit_length()}"
            )
        return _times(x, *[fourier_table(part, length, count, sign, _bits(x[0])) for part in (_COSINE, _SINE)])
    columns = length // rows
    # Entry columns * a + b has frequency c + rows * d: over a first, then a turn by b * c, then over b.
    split = [None if part is None else part.reshape([*part.shape[:-1], rows, columns]).transpose(-1, -2) for part in x]
    assert split[0] is not None
    inner = _transformed((split[0], split[1]), sign)
    cosines, sines = (fourier_twist(part, columns, rows, sign, _bits(x[0])) for part in (_COSINE, _SINE))
    real = inner[0] * cosines - inner[1] * sines
    imaginary = inner[1] * cosines + inner[0] * sines
    outer = _transformed((real.transpose(-1, -2), imaginary.transpose(-1, -2)), sign)
    found = [part.transpose(-1, -2).reshape(x[0].shape).narrow(-1, 0, count) for part in outer]
    return found[0], found[1]


def _times(x: Pair, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    real, imaginary = x
    if imaginary is None:
        return torch.matmul(real, cosines), torch.matmul(real, sines)
    return (
        torch.matmul(real, cosines) - torch.matmul(imaginary, sines),
        torch.matmul(imaginary, cosines) + torch.matmul(real, sines),
    )


def _along(x: Pair, axis: int, sign: int, count: int | None = None) -> tuple[Tensor, Tensor]:
    turned = [None if part is None else part.transpose(axis, -1) for part in x]
    assert turned[0] is not None
    real, imaginary = _transformed((turned[0], turned[1]), sign, count)
    return real.transpose(axis, -1), imaginary.transpose(axis, -1)


def _scale(normalization: int, lengths: Sequence[int]) -> float:
    """By PyTorch's numbers: 0 for none, 1 for the root of the size, 2 for the size."""
    return (1.0, 1 / math.sqrt(math.prod(lengths)), 1 / math.prod(lengths))[normalization]


def _scaled(x: tuple[Tensor, Tensor], factor: float) -> Tensor:
    return paired(*x) if factor == 1 else paired(x[0] * factor, x[1] * factor)


def fft_r2c(x: Tensor, axes: Sequence[int], normalization: int, onesided: bool) -> Tensor:
    """Along the last of `axes` first, where the values are real and, `onesided`, half of the frequencies is wanted."""
    *others, last = axes
    factor = _scale(normalization, [x.shape[axis] for axis in axes])
    found = _along((x, None), last, -1, x.shape[last] // 2 + 1 if onesided else None)
    for axis in others:
        found = _along(found, axis, -1)
    return _scaled(found, factor)


def fft_c2c(x: Tensor, axes: Sequence[int], normalization: int, forward: bool) -> Tensor:
    found = parts(x)
    for axis in axes:
        found = _along(found, axis, -1 if forward else 1)
    return _scaled(found, _scale(normalization, [x.shape[axis] for axis in axes]))


def fft_c2r(x: Tensor, axes: Sequence[int], normalization: int, last_size: int) -> Tensor:
    """The last of `axes` has half of a spectrum; the other half is its mirror image."""
    *others, last = axes
    lengths = [*[x.shape[axis] for axis in others], last_size]
    found = parts(x)
    for axis in others:
        found = _along(found, axis, 1)
    real, imaginary = (part.transpose(last, -1).narrow(-1, 0, last_size // 2 + 1) for part in found)
    if last_size <= _DIRECT_LENGTH or _divisor(last_size) == 1:
        cosines, sines = (half_spectrum_table(part, last_size, _bits(real)) for part in (_COSINE, _SINE))
        result = torch.matmul(real, cosines) - torch.matmul(imaginary, sines)
    else:
        mirrored = (last_size - 1) // 2
        whole = torch.cat([real, real.narrow(-1, 1, mirrored).flip(-1)], -1)
        # The imaginary parts of the ends have no mirror image, and PyTorch does not read them.
        inside = imaginary.narrow(-1, 1, mirrored)
        ends = torch.zeros_like(imaginary.narrow(-1, 0, 1))
        middle = [ends] if last_size % 2 == 0 else []
        result = _transformed((whole, torch.cat([ends, inside, *middle, -inside.flip(-1)], -1)), 1)[0]
    factor = _scale(normalization, lengths)
    result = result.transpose(last, -1)
    return result if factor == 1 else result * factor


def fftfreq(n: int, d: float = 1.0, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    found = torch.cat([torch.arange((n + 1) // 2), torch.arange(-(n // 2), 0)])
    return found.to(dtype or torch.get_default_dtype()) / (n * d)


def rfftfreq(n: int, d: float = 1.0, *, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    return torch.arange(n // 2 + 1).to(dtype or torch.get_default_dtype()) / (n * d)


SPECTRA: Mapping[OpOverload, Decomposition] = {
    A.fft_fftfreq.default: fftfreq,
    A.fft_rfftfreq.default: rfftfreq,
    A._fft_r2c.default: fft_r2c,
    A._fft_c2c.default: fft_c2c,
    A._fft_c2r.default: fft_c2r,
}
