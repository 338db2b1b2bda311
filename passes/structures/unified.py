"""Micro-structured unification: the weights of a block have one absolute value, and keep their signs (Lin et al., 2021,
arXiv 2106.08301). A block whose value is 0 is pruned.

What it saves is storage, one value and a sign bit a weight; on a CPU only the pruned blocks save time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import first_index, widest
from .block_rows import block_parts, from_block_parts
from .boxes import Boxes
from .packed import Integers, Packed, bits_of, numbers_in_bits

__all__ = ["Unified", "UnifiedBlocks"]


@dataclass(frozen=True)
class Unified(Boxes):
    """A unit is P filters x Q input channels at one kernel position, whose weights are +u or -u.

    The u that is nearest to a block of n weights w is the mean of |w|: it leaves ||w||^2 - n u^2, and a pruned block leaves
    ||w||^2. So those of the largest n u^2 stay, that is of the largest sum of |w|.

    Attributes:
        filters: P.
        channels: Q.
    """

    form: ClassVar[str] = "unified:PxQ"
    changes_values: ClassVar[bool] = True

    filters: int = 4
    channels: int = 4

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, self.channels

    def levels(self, weight: Tensor) -> Tensor:
        """u of every block, in float64: a sum of float16 may be infinite."""
        return self.unit_scores(weight.double().abs()) / (self.filters * self.channels)

    def energy(self, weight: Tensor) -> Tensor:
        """u^2 for every weight of a block, so that their sum is n u^2."""
        return self.spread(self.levels(weight).square(), weight)

    def applied(self, weight: Tensor, mask: Tensor) -> Tensor:
        """With +u or -u in the blocks that stay. A weight of 0 is taken for positive."""
        levels = self.levels(weight).to(weight)
        return torch.where(weight < 0, -1.0, 1.0).to(weight) * self.spread(levels, weight) * mask

    def broken(self, weight: Tensor) -> str:
        low, high = self.extremes(weight.abs())
        wrong = low != high
        if not bool(wrong.any()):
            return ""
        index = first_index(wrong)
        where = self.located(index, kernel_position=weight.dim() > 2)
        return f"{where}: absolute values from {float(low[tuple(index)]):g} to {float(high[tuple(index)]):g}, not one"

    @classmethod
    def recognise(cls, weight: Tensor) -> Unified | None:
        """By the values, with two filters and two channels or more."""
        filters = widest(lambda size: cls(size, 2), weight)
        return None if filters is None else widest(lambda size: cls(filters.filters, size), weight)

    def pack(self, weight: Tensor) -> UnifiedBlocks:
        return UnifiedBlocks.pack(weight, self)


@dataclass(frozen=True, eq=False)
class UnifiedBlocks(Packed):
    """One value for every block that is not zero, a bit a block that says which are, and a bit a weight of these: its sign."""

    name: ClassVar[str] = "unified"

    present: Integers
    signs: Integers
    structure: Unified

    @classmethod
    def pack(cls, weight: Tensor, structure: Unified) -> UnifiedBlocks:
        parts = block_parts(weight.detach().cpu(), *structure.box)
        values = parts[..., 0].abs()
        there = values != 0
        return cls(
            tuple(weight.shape),
            values[there],
            bits_of(there.numpy(), 1),
            bits_of((parts[there] < 0).numpy(), 1),
            structure,
        )

    def unpack(self) -> Tensor:
        empty = block_parts(torch.zeros(self.shape, dtype=self.values.dtype), *self.structure.box)
        blocks, size = empty[..., 0].numel(), empty.shape[-1]
        there = numbers_in_bits(self.present, 1, blocks).astype(bool)
        signs = numbers_in_bits(self.signs, 1, self.values.numel() * size).reshape(-1, size)
        flat = empty.reshape(blocks, size)
        negative = torch.from_numpy(signs.astype(bool))
        flat[torch.from_numpy(np.flatnonzero(there))] = torch.where(negative, -1, 1).to(flat) * self.values[:, None]
        return from_block_parts(flat.reshape(empty.shape), self.shape, *self.structure.box)
