"""Block compressed rows (BSR): of every row of blocks, the columns of those that are there, and their weights.

With blocks of one weight it is CSR: row pointers, column indices, values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .packed import Integers, Packed, counted_up, integers, owners

__all__ = ["BlockRows", "block_parts", "from_block_parts"]


@dataclass(frozen=True, eq=False)
class BlockRows(Packed):
    """Blocks of so many filters and input channels, at one kernel position or with the whole kernel.

    A column of blocks has the number ``channel block * kernel positions + position``, or that of its channel block where
    kernels are whole. `values` has one row a block: filters x channels (x positions).
    """

    name: ClassVar[str] = "block rows"

    pointers: Integers
    """Where each row of blocks begins, and the end of the last."""
    columns: Integers
    """Of every block that is there, row by row."""
    filters: int
    channels: int
    whole: bool

    @classmethod
    def pack(cls, weight: Tensor, filters: int = 1, channels: int = 1, *, whole: bool = False) -> BlockRows:
        """Stores every block that has a weight which is not zero."""
        blocks = block_parts(weight.detach().cpu(), filters, channels, whole)
        there = (blocks != 0).any(-1)
        counts = there.sum(1).numpy()
        columns = there.nonzero()[:, 1].numpy()
        kind = BlockRows if filters * channels > 1 or whole else CompressedRows
        return kind(
            tuple(weight.shape), blocks[there], counted_up(counts), integers(columns, blocks.shape[1] - 1), filters,
            channels, whole,
        )  # fmt: skip

    def unpack(self) -> Tensor:
        empty = torch.zeros(self.shape, dtype=self.values.dtype)
        blocks = block_parts(empty, self.filters, self.channels, self.whole)
        blocks[torch.from_numpy(owners(self.pointers)), torch.from_numpy(self.columns.astype(np.int64))] = self.values
        return from_block_parts(blocks, self.shape, self.filters, self.channels, self.whole)


@dataclass(frozen=True, eq=False)
class CompressedRows(BlockRows):
    """Compressed sparse rows: blocks of one weight."""

    name: ClassVar[str] = "csr"


def block_parts(weight: Tensor, filters: int, channels: int, whole: bool = False) -> Tensor:
    """A copy as rows of blocks x columns of blocks x weights of a block; columns are numbered as those of `BlockRows`."""
    rows, columns = weight.shape[0] // filters, weight.shape[1] // channels
    parts = weight.reshape(rows, filters, columns, channels, -1)
    if whole:
        return parts.transpose(1, 2).reshape(rows, columns, -1).clone()
    return parts.permute(0, 2, 4, 1, 3).reshape(rows, -1, filters * channels).clone()


def from_block_parts(parts: Tensor, shape: tuple[int, ...], filters: int, channels: int, whole: bool = False) -> Tensor:
    """The inverse of `block_parts`, for a weight of that shape."""
    rows, columns, positions = shape[0] // filters, shape[1] // channels, math.prod(shape[2:])
    if whole:
        return parts.reshape(rows, columns, filters, channels, positions).transpose(1, 2).reshape(shape)
    return parts.reshape(rows, columns, positions, filters, channels).permute(0, 3, 1, 4, 2).reshape(shape)
