"""What is known about a value, channel by channel, before any input arrives.

A fact array has the rank of the tensor it describes and size 1 along every axis where nothing differs: a feature map
``N x C x H x W`` whose channels are constants has facts of shape ``1 x C x 1 x 1``. Transfer functions are therefore
ordinary array code: concatenation concatenates, a permutation permutes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Facts", "agreeing", "collapsed", "constants_of", "level", "real_numbers", "unknown"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Facts:
    """Constants known about one tensor.

    Attributes:
        value: float64; the constant where `known`, arbitrary elsewhere. Of complex values: constants whose imaginary part is
            zero are known, no others.
        known: where the tensor is `value` times `pattern`, whatever the input.
        pattern: None for a plain constant. Otherwise the name of the node that made the plane all known channels are
            multiples of: ones with a border of zeros after padding, ones with a worn edge after average pooling.
        stochastic: an axis along which the entries are non-negative and sum to one (after softmax), or None.
    """

    value: Floats
    known: Bools
    pattern: str | None = None
    stochastic: int | None = None

    @property
    def rank(self) -> int:
        return self.known.ndim

    @property
    def nothing(self) -> bool:
        """Nothing is known."""
        return not self.known.any()

    def plain(self) -> Facts:
        """Only what holds without a pattern: with one, just the zeros."""
        if self.pattern is None:
            return self
        return collapsed(self.value, self.known & (self.value == 0))

    def along(self, axis: int, size: int) -> tuple[Floats, Bools]:
        """Per position of `axis` (length `size`): the constant, and whether the whole slice is that constant."""
        axis %= self.rank
        others = tuple(a for a in range(self.rank) if a != axis)
        known = np.asarray(self.known.all(axis=others))
        value = self.value.min(axis=others)
        if any(self.known.shape[a] != 1 for a in others):
            known = known & (value == self.value.max(axis=others))
        if known.shape[0] != size:
            value, known = np.broadcast_to(value, (size,)), np.broadcast_to(known, (size,))
        return value, known

    def with_pattern(self, pattern: str) -> Facts:
        """The same multiples of another plane; zero stays zero without any."""
        return self if not (self.known & (self.value != 0)).any() else replace(self, pattern=pattern)

    def cut(self, node: str) -> Facts:
        """Facts of a part of the tensor: another part of a pattern is another pattern."""
        return self if self.pattern is None else self.with_pattern(node)


def unknown(rank: int) -> Facts:
    """Nothing known about a tensor of `rank` axes."""
    shape = (1,) * rank
    return Facts(np.zeros(shape), np.zeros(shape, bool))


def collapsed(value: Any, known: Any, pattern: str | None = None, stochastic: int | None = None) -> Facts:
    """Facts with non-finite constants forgotten and, if nothing is known, in their smallest form."""
    value = np.asarray(value, dtype=np.float64)
    known = np.asarray(known, dtype=bool) & np.isfinite(value)
    if not known.any():
        empty = unknown(value.ndim)
        return replace(empty, stochastic=stochastic) if stochastic is not None else empty
    return Facts(np.where(known, value, 0.0), known, pattern, stochastic)


def constants_of(tensor: Any, largest: int = 1 << 22) -> Facts:
    """Facts of a stored tensor: everything is known. Tensors of more than `largest` entries count as unknown."""
    if tensor.numel() > largest or tensor.numel() == 0:
        return unknown(tensor.dim())
    array, real = real_numbers(tensor)
    for axis in range(array.ndim if real.all() else 0):
        if array.shape[axis] > 1 and (array == array.take([0], axis)).all():
            array, real = array.take([0], axis), real.take([0], axis)
    return Facts(np.array(array), real & np.isfinite(array))


def real_numbers(tensor: Any) -> tuple[Floats, Bools]:
    """A tensor in float64, and where that is all of it: a complex number with an imaginary part is no number here."""
    tensor = tensor.detach().cpu()
    if not tensor.is_complex():
        array = tensor.double().numpy()
        return array, np.ones(array.shape, bool)
    return tensor.real.double().numpy(), (tensor.imag == 0).numpy()


def level(given: Facts, axes: tuple[int, ...]) -> Facts:
    """The constants that do not differ along `axes`, which get extent 1. Of plain facts."""
    value = given.value.min(axis=axes, keepdims=True)
    known = given.known.all(axis=axes, keepdims=True) & (value == given.value.max(axis=axes, keepdims=True))
    return collapsed(value, known)


def agreeing(first: Facts, second: Facts) -> Facts:
    """Where both know the same constant without a pattern."""
    one, other = first.plain(), second.plain()
    known = one.known & other.known & (one.value == other.value)
    return collapsed(np.broadcast_to(one.value, known.shape), known)
