"""What storage formats share: arrays whose bytes are counted, and the way back."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Integers", "Packed", "bits_of", "counted_up", "integers", "numbers_in_bits", "owners"]

Integers = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, eq=False)
class Packed(ABC):
    """A weight in a storage format: `values` in the weight's own type, and tables of the smallest integers that suffice."""

    name: ClassVar[str]
    """Of the format."""

    shape: tuple[int, ...]
    """Of the weight."""
    values: Tensor

    @property
    def arrays(self) -> dict[str, Integers | Tensor]:
        """All that is stored, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if isinstance(value, np.ndarray | Tensor)}

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    @abstractmethod
    def unpack(self) -> Tensor:
        """The weight again, on the CPU."""


def integers(values: Sequence[int] | NDArray[Any], most: int) -> Integers:
    """Whole numbers from 0 to `most` in the smallest type that holds them."""
    return np.asarray(values).astype(np.min_scalar_type(most))


def counted_up(counts: NDArray[Any]) -> Integers:
    """Where each of several lists begins, and where the last one ends."""
    ends = np.concatenate([[0], np.cumsum(counts)])
    return integers(ends, int(ends[-1]))


def owners(ends: Integers) -> NDArray[np.int64]:
    """The inverse of `counted_up`: of every entry of the lists, which list it is of."""
    lengths = np.asarray(ends[1:].astype(np.int64) - ends[:-1].astype(np.int64), np.int64)
    return np.repeat(np.arange(len(lengths)), lengths)


def bits_of(numbers: NDArray[Any], width: int) -> Integers:
    """Whole numbers of `width` bits each (at most 8), one behind the other in bytes."""
    bits = np.unpackbits(numbers.astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :width]
    return np.packbits(bits.reshape(-1), bitorder="little")


def numbers_in_bits(packed: Integers, width: int, count: int) -> NDArray[np.uint8]:
    """The inverse of `bits_of`."""
    bits = np.unpackbits(packed.view(np.uint8), count=width * count, bitorder="little").reshape(count, width)
    return np.packbits(bits, axis=1, bitorder="little")[:, 0]
