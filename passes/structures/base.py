"""What a structure is: which weights of a layer are zero together, and what choosing among them means.

A weight is seen as filters x input channels of a group x kernel positions: convolutions as PyTorch stores them, transposed
ones with their channels the other way round, linear layers and the matrices of GRU and LSTM with no kernel positions. A
structure acts per filter over the input channels of its group, and filters that share something are in one group.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import ClassVar, Self, TypeVar

import torch
from torch import Tensor

from ...frontend.base.errors import InputError
from .block_rows import BlockRows
from .packed import Packed

__all__ = ["LayerShape", "Structure", "check_share", "first_index", "multiple_of", "named_unit", "widest"]

S = TypeVar("S", bound="Structure")

_WIDEST = 64
"""No more filters or channels than this are recognised as one unit."""


@dataclass(frozen=True)
class LayerShape:
    """The shape of a layer's weight.

    Attributes:
        filters: output channels, or rows of a matrix.
        channels: input channels that one filter reads, or columns of a matrix.
        taps: size of the kernel along each axis of the image; empty for a matrix.
        groups: of a convolution; a filter reads only the channels of its own.
    """

    filters: int
    channels: int
    taps: tuple[int, ...] = ()
    groups: int = 1

    @classmethod
    def of(cls, weight: Tensor, groups: int = 1) -> LayerShape:
        """Of a weight of filters x channels x kernel."""
        filters, channels, *taps = weight.shape
        return cls(filters, channels, tuple(taps), groups)

    @property
    def positions(self) -> int:
        """Kernel positions."""
        return math.prod(self.taps)

    @property
    def weights(self) -> int:
        return self.filters * self.channels * self.positions

    @property
    def filters_of_group(self) -> int:
        return self.filters // self.groups


@dataclass(frozen=True)
class Structure(ABC):
    """A family of zeros, with its sizes. The fields are its options, in the order in which they are spelled.

    Weights and scores are tensors of filters x input channels of a group x kernel, of any device; masks are True where a weight
    stays. A share of zeros, `sparsity`, is at least 0 and below 1, and some unit of a layer always stays.
    """

    form: ClassVar[str]
    """How it is spelled, such as ``row-block:R``."""
    changes_values: ClassVar[bool] = False
    """Whether weights that stay get other values, and not only those that go."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise InputError(f"{field.name} of {self.form} is {value}; give 1 or more")

    def __str__(self) -> str:
        name, colon, options = self.form.partition(":")
        separator = "x" if "x" in options else ":"
        values = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return name + colon + separator.join(str(value) for value in values if isinstance(value, int))

    @property
    def fixed_sparsity(self) -> float | None:
        """The share of zeros where the structure itself says it; it then leaves as many whatever is asked for."""
        return None

    @abstractmethod
    def fits(self, shape: LayerShape) -> str:
        """Why this structure cannot be in a layer of that shape; empty if it can."""

    def fitted(self, scores: Sequence[Tensor]) -> Self:
        """The structure with what it chooses once for all layers, from the scores of each (see `energy`)."""
        return self

    def energy(self, weight: Tensor) -> Tensor:
        """Scores of single weights for which `mask` gives the nearest tensor of this structure: squares.

        In float64, since squares leave the range of the weights' own type: of 1e-4 in float16, of 1e20 in float32.
        """
        return weight.double().square()

    @abstractmethod
    def unit_scores(self, scores: Tensor) -> Tensor:
        """The score of every unit, the sum of its weights'. Gradients pass, for penalties on groups."""

    @abstractmethod
    def unit_weights(self, shape: LayerShape) -> int:
        """How many weights a unit has that is kept, in a layer of that shape."""

    @abstractmethod
    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        """The units of the highest scores, of equal ones the last, so that a share of about `sparsity` is zero: boolean.

        Raises:
            InputError: the share is out of range.
        """

    def project(self, weight: Tensor, sparsity: float) -> Tensor:
        """The nearest tensor, by the Euclidean norm, that has this structure and this share of zeros.

        Raises:
            InputError: the share is out of range.
        """
        return self.applied(weight, self.mask(self.energy(weight), sparsity))

    def applied(self, weight: Tensor, mask: Tensor) -> Tensor:
        """The nearest tensor of this structure whose zeros are those of a mask that it gave."""
        return weight * mask

    def at(self, sparsity: float) -> Structure:
        """The structure on the way from dense to this one, where so large a share is zero."""
        return self

    def factors(self, sparsity: float) -> tuple[tuple[Structure, float], ...]:
        """Structures, each with a share of zeros, that a tensor with this structure and share has all at once."""
        return ((self, sparsity),)

    def lasso_groups(self, scores: Tensor) -> tuple[Tensor, ...]:
        """Sums of scores over what a group lasso is to make zero together. Gradients pass."""
        return (self.unit_scores(scores),)

    @abstractmethod
    def broken(self, weight: Tensor) -> str:
        """Where zeros, or values, are not of this structure, as words; empty if all are. `weight` must fit."""

    @classmethod
    @abstractmethod
    def recognise(cls, weight: Tensor) -> Self | None:
        """This family in the sizes that the zeros, or values, of a weight have; None if they are of another."""

    @abstractmethod
    def pack(self, weight: Tensor) -> Packed:
        """The weight as this structure's own format stores it. `weight` must not be `broken`."""

    def storage(self, weight: Tensor) -> Mapping[str, int]:
        """Bytes by format: ``dense``, ``csr`` and the structure's own. `weight` must not be `broken`."""
        packed = [BlockRows.pack(weight), self.pack(weight)]
        dense = {"dense": weight.numel() * weight.element_size()}
        return MappingProxyType(dense | {way.name: way.bytes for way in packed})


def check_share(sparsity: float) -> None:
    """Raises InputError for a share of zeros that is out of range."""
    if not (isinstance(sparsity, Real) and 0 <= sparsity < 1):
        raise InputError(f"sparsity {sparsity} is outside 0..1; give the share to remove, such as 0.5")


def multiple_of(shape: LayerShape, filters: int = 1, channels: int = 1) -> str:
    """Why a layer cannot be cut into blocks of so many filters and input channels; empty if it can."""
    of_group = " of a group" if shape.groups > 1 else ""
    if shape.filters_of_group % filters:
        return f"its {shape.filters_of_group} filters{of_group} are no multiple of {filters}"
    if shape.channels % channels:
        return f"its {shape.channels} input channels{of_group} are no multiple of {channels}"
    return ""


def widest(make: Callable[[int], S], weight: Tensor, least: int = 2) -> S | None:
    """The structure of the largest size, doubled from `least`, that fits a weight and is not broken in it.

    For sizes of which each implies the smaller ones. Groups do not matter: zeros that filters of two groups share by chance
    are shared all the same.
    """
    found, size = None, least
    while size <= _WIDEST and not (structure := make(size)).fits(LayerShape.of(weight)):
        # Most that is of another structure shows it at the beginning.
        if structure.broken(weight[:_WIDEST, :_WIDEST]) or structure.broken(weight):
            break
        found, size = structure, 2 * size
    return found


def named_unit(**places: tuple[int, int]) -> str:
    """Where a unit lies, from the first index and the number along each axis: ``filters 4 to 7, input channel 2``."""
    words = []
    for axis, (start, count) in places.items():
        name = axis.replace("_", " ")
        words.append(f"{name} {start}" if count == 1 else f"{name}s {start} to {start + count - 1}")
    return ", ".join(words)


def first_index(where: Tensor) -> list[int]:
    """The index of the first True entry."""
    flat = int(where.reshape(-1).to(torch.uint8).argmax())
    return [int(index) for index in torch.unravel_index(torch.tensor(flat), where.shape)]
