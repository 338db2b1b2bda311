"""N:M zeros: of M consecutive input channels a filter has at most N, at every kernel position by itself.

Channels are grouped as in NVIDIA's format and in the final code of SR-STE (Zhou et al., 2021, arXiv 2102.04010). Shared by R
consecutive filters, which is ours, N:M is what CPUs gain from: column-wise N:M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...frontend.base.errors import InputError
from .base import LayerShape, Structure, check_share, first_index, multiple_of, named_unit, widest
from .packed import Integers, Packed, bits_of, numbers_in_bits
from .ranking import highest_of_each

__all__ = ["NOfM", "PackedNOfM"]

_SIZES = (4, 8, 2, 16)
"""Of M, as they are looked for."""


@dataclass(frozen=True)
class NOfM(Structure):
    """A unit is one input channel at a kernel position of R filters; of every M units N stay.

    The projection keeps the N of the largest norm of every group.

    Attributes:
        n: units that stay of a group.
        m: units of a group, consecutive input channels.
        filters: R.
    """

    form: ClassVar[str] = "N:M:R"

    n: int = 2
    m: int = 4
    filters: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n >= self.m:
            raise InputError(f"{self.n}:{self.m} leaves nothing out; N is below M")
        if self.m > 256:
            raise InputError(f"{self.n}:{self.m} is of too many input channels; M is at most 256")

    def __str__(self) -> str:
        shared = f":{self.filters}" if self.filters > 1 else ""
        return f"{self.n}:{self.m}{shared}"

    @property
    def fixed_sparsity(self) -> float:
        return 1 - self.n / self.m

    def unit_weights(self, shape: LayerShape) -> int:
        return self.filters

    def fits(self, shape: LayerShape) -> str:
        return multiple_of(shape, self.filters, self.m)

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Of shape filters/R x channels/M x kernel positions x M."""
        rows = scores.shape[0] // self.filters
        parts = scores.reshape(rows, self.filters, scores.shape[1] // self.m, self.m, -1)
        return parts.sum(1).transpose(2, 3)

    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        check_share(sparsity)
        keep = highest_of_each(self.unit_scores(scores), self.n).transpose(2, 3)
        rows, groups, _, positions = keep.shape
        spread = keep[:, None].expand(rows, self.filters, groups, self.m, positions)
        return spread.reshape(scores.shape)

    def at(self, sparsity: float) -> NOfM:
        """With more units of every group."""
        return replace(self, n=min(self.m - 1, max(self.n, math.ceil((1 - sparsity) * self.m - 1e-9))))

    def broken(self, weight: Tensor) -> str:
        counts = self.unit_scores((weight != 0).to(torch.int32))
        there = counts > 0
        too_many = there.sum(-1) > self.n
        if bool(too_many.any()):
            row, group, _ = index = first_index(too_many)
            where = named_unit(filter=(row * self.filters, self.filters), input_channel=(group * self.m, self.m))
            return f"{where}: {int(there[tuple(index)].sum())} of {self.m} are there, more than {self.n}"
        partly = there & (counts < self.filters)
        if bool(partly.any()):
            row, group, _, place = first_index(partly)
            where = named_unit(filter=(row * self.filters, self.filters), input_channel=(group * self.m + place, 1))
            return f"{where}: some of these filters have a weight there, others none"
        return ""

    @classmethod
    def recognise(cls, weight: Tensor) -> NOfM | None:
        """Where every group of 4 (or else 8, 2, 16) has the same number, shared by as many filters as share it."""
        for size in _SIZES:
            if weight.shape[1] % size == 0 and (n := _of_each(weight[:1], size)) and n == _of_each(weight, size):
                return widest(partial(cls, n, size), weight, least=1)
        return None

    def pack(self, weight: Tensor) -> PackedNOfM:
        return PackedNOfM.pack(weight, self)


@dataclass(frozen=True, eq=False)
class PackedNOfM(Packed):
    """N values a group and filter, and of each its place in the group, in as few bits as M needs: 2 for 4.

    A group that has fewer is filled with zeros. Places are stored once for the filters that share them.
    """

    name: ClassVar[str] = "n:m"

    places: Integers
    structure: NOfM

    @classmethod
    def pack(cls, weight: Tensor, structure: NOfM) -> PackedNOfM:
        weight = weight.detach().cpu()
        keep = highest_of_each(structure.unit_scores(weight != 0), structure.n)
        places = keep.nonzero()[:, -1].reshape(*keep.shape[:-1], structure.n)
        return cls(
            tuple(weight.shape),
            _grouped(weight, structure).gather(-1, _for_filters(places, structure)).reshape(-1),
            bits_of(places.numpy(), _width(structure)),
            structure,
        )

    def unpack(self) -> Tensor:
        structure, groups = self.structure, self.values.numel() // self.structure.n
        empty = _grouped(torch.zeros(self.shape, dtype=self.values.dtype), structure)
        rows, filters, blocks, positions, _ = empty.shape
        numbers = numbers_in_bits(self.places, _width(structure), groups * structure.n // filters)
        places = torch.from_numpy(numbers.astype(np.int64)).reshape(rows, blocks, positions, structure.n)
        index = _for_filters(places, structure)
        full = empty.scatter(-1, index, self.values.reshape(index.shape))
        return full.transpose(3, 4).reshape(self.shape)


def _of_each(weight: Tensor, size: int) -> int | None:
    """How many weights every group of so many channels has, if all have as many and it is neither none nor all."""
    counts = (weight != 0).reshape(len(weight), weight.shape[1] // size, size, -1).sum(2, dtype=torch.uint8)
    most = int(counts.max())
    return most if 0 < most < size and most == int(counts.min()) else None


def _grouped(weight: Tensor, structure: NOfM) -> Tensor:
    """The weight as filters/R x R x channels/M x kernel positions x M."""
    rows = weight.shape[0] // structure.filters
    parts = weight.reshape(rows, structure.filters, weight.shape[1] // structure.m, structure.m, -1)
    return parts.transpose(3, 4)


def _for_filters(places: Tensor, structure: NOfM) -> Tensor:
    """Places of units, once for every filter of them."""
    return places[:, None].expand(places.shape[0], structure.filters, *places.shape[1:])


def _width(structure: NOfM) -> int:
    return (structure.m - 1).bit_length()
