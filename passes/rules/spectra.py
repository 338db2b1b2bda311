"""Fourier transforms and complex numbers: axes that are not transformed pass, and zeros stay zero.

A transform over channels needs all of them, as each frequency is a sum over the axis. Constants of complex values are those
without an imaginary part (see `facts`): zeros, most of all.
"""

from __future__ import annotations

import numpy as np

from ..axes import AxesBuilder
from ..facts import Facts, collapsed, level, unknown
from ..liveness import KnownConstants
from ..values import Operation, shape_of
from .base import Rule, register
from .elementwise import Elementwise
from .selection import Roll

__all__ = ["Angle", "AsComplex", "AsReal", "InverseShortTime", "Part", "Shift", "ShortTime", "Transform"]


@register
class Transform(Rule):
    """``fft``, ``rfft``, ``irfft`` and their relatives along the axes that they name: over the image, channels
    ``(a, 0, b)`` give the spectra of a, of zeros, and of b.

    For example::

        before fft_fft(x 2x8x8x8, None, 2) -> 2x8x8x8
        after  fft_fft(x 2x4x8x8, None, 2) -> 2x4x8x8
    """

    operators = tuple(
        f"aten.fft_{name}"
        for name in "fft ifft rfft irfft hfft ihfft fft2 ifft2 rfft2 irfft2 fftn ifftn rfftn irfftn".split()
    )

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} runs over the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        worked = self._axes(op)
        axes.pass_through(op["self"], op.node, ((a, a) for a in range(len(shape_of(op.node))) if a not in worked))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return _zeros(level(facts[op["self"]].plain(), self._axes(op)))

    def _axes(self, op: Operation) -> tuple[int, ...]:
        rank, dim = len(shape_of(op.node)), op["dim"]
        if dim is None:  # The last ones that are given a size, or all.
            sizes = op.get("s")
            return tuple(range(rank - len(sizes) if sizes is not None else 0, rank))
        return tuple(axis % rank for axis in ([dim] if isinstance(dim, int) else dim))


@register
class Shift(Roll):
    """``fftshift`` and its inverse: rolls by half of an axis, which stays whole.

    For example::

        before fft_fftshift(x 2x8x8x8, [-1]) -> 2x8x8x8
        after  fft_fftshift(x 2x4x8x8, [-1]) -> 2x4x8x8
    """

    operators = ("aten.fft_fftshift", "aten.fft_ifftshift")

    def _moved(self, op: Operation) -> set[int]:
        rank, dim = len(shape_of(op.node)), op["dim"]
        named = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
        return {axis % rank for axis in named}


@register
class ShortTime(Rule):
    """``stft``: rows of samples become rows of spectra, from each row alone.

    For example::

        before stft(x 8x72, 8, 4, None, lifted_tensor_0 8, False, None, True) -> 8x5x17
        after  stft(x 4x72, 8, 4, None, lifted_tensor_0 8, False, None, True) -> 4x5x17
    """

    operators = ("aten.stft",)

    def reason(self, op: Operation) -> str:
        return f"{op.name.removeprefix('aten.')} runs over the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        if self._batched(op):
            axes.same((op["self"], 0), (op.node, 0))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        rank, window = len(shape_of(op.node)), op.get("window")
        if window is not None and not facts.ranges[window].finite:
            return unknown(rank)
        given = facts[op["self"]].plain()
        row = level(given, tuple(range(self._batched(op), given.rank)))
        shape = ((row.known.shape[0],) if self._batched(op) else ()) + (1,) * (rank - self._batched(op))
        return _zeros(Facts(row.value.reshape(shape), row.known.reshape(shape)))

    def _batched(self, op: Operation) -> bool:
        return len(shape_of(op["self"])) == 2


@register
class InverseShortTime(ShortTime):
    """``istft``: rows of spectra become rows of samples. They are divided by a sum of windows that PyTorch wants to be
    positive.

    For example::

        before istft(x 8x5x17, 8, 4, None, lifted_tensor_0 8) -> 8x64
        after  istft(x 4x5x17, 8, 4, None, lifted_tensor_0 8) -> 4x64
    """

    operators = ("aten.istft",)

    def _batched(self, op: Operation) -> bool:
        return len(shape_of(op["self"])) == 3


@register
class Part(Rule):
    """``real`` and ``imag``: a constant is its real part.

    For example::

        before real(x 2x8x8x8) -> 2x8x8x8
        after  real(x 2x4x8x8) -> 2x4x8x8
    """

    operators = ("aten.real", "aten.imag")

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        axes.pass_through(op["self"], op.node, ((axis, axis) for axis in range(len(shape_of(op.node)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op["self"]]
        return given if op.name == "aten.real" else collapsed(np.zeros(given.value.shape), given.known)


@register
class AsReal(Rule):
    """``view_as_real``: both parts of every number, along a new axis.

    For example::

        before view_as_real(x 2x8x8x8) -> 2x8x8x8x2
        after  view_as_real(x 2x4x8x8) -> 2x4x8x8x2
    """

    operators = ("aten.view_as_real",)

    def reason(self, op: Operation) -> str:
        return ""

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        axes.pass_through(op["self"], op.node, ((axis, axis) for axis in range(len(shape_of(op["self"])))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op["self"]].plain()
        if not (given.known & (given.value != 0)).any():
            return collapsed(given.value[..., None], given.known[..., None])
        return collapsed(
            np.stack([given.value, np.zeros(given.value.shape)], -1), np.stack([given.known, given.known], -1)
        )


@register
class AsComplex(Rule):
    """``view_as_complex``: two numbers along the last axis become one.

    For example::

        before view_as_complex(x 2x8x8x8x2) -> 2x8x8x8
        after  view_as_complex(x 2x4x8x8x2) -> 2x4x8x8
    """

    operators = ("aten.view_as_complex",)

    def reason(self, op: Operation) -> str:
        return "view_as_complex joins pairs along the channel axis"

    def relate(self, op: Operation, axes: AxesBuilder) -> None:
        axes.pass_through(op["self"], op.node, ((axis, axis) for axis in range(len(shape_of(op.node)))))

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        given = facts[op["self"]].plain()
        real = given.known.all(-1) & (given.value[..., -1] == 0)
        return collapsed(given.value[..., 0], real)


@register
class Angle(Elementwise):
    """``angle``: axes pass. It is 0 or pi at zero, as the sign of that zero has it, which constants do not tell.

    For example::

        before angle(x 2x8x8x8) -> 2x8x8x8
        after  the same
    """

    operators = ("aten.angle",)

    def constants(self, op: Operation, facts: KnownConstants) -> Facts:
        return unknown(len(shape_of(op.node)))


def _zeros(given: Facts) -> Facts:
    return collapsed(given.value, given.known & (given.value == 0))
