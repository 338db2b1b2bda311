"""BCRC: compressed rows of which those with the same columns share one list (GRIM: Niu et al., 2021, arXiv 2108.11033).

The names of the arrays are the paper's; it was not read again, so they may hold what ours do in another form. Columns that are
removed block by block leave hardly two equal rows in the whole matrix; so the rows here are those of strips, of as many input
channels as a block has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .packed import Integers, Packed, counted_up, integers, owners

__all__ = ["ColumnGroups"]


@dataclass(frozen=True, eq=False)
class ColumnGroups(Packed):
    """The rows of every strip, ordered so that those with the same columns follow one another, longest first.

    Row f of strip s has the number ``s * filters + f``. `values` are those of the reordered rows, each in the order of its
    columns.
    """

    name: ClassVar[str] = "bcrc"

    reorder: Integers
    """Which row stands at each place."""
    row_offset: Integers
    """Where the weights of every reordered row begin, and the end."""
    occurrence: Integers
    """The first row of every group, and the number of rows."""
    column_stride: Integers
    """Where the columns of every group begin, and the end."""
    compact_column: Integers
    """The columns of every group, counted within the strip."""
    channels: int
    """Input channels of a strip."""

    @classmethod
    def pack(cls, weight: Tensor, channels: int | None = None) -> ColumnGroups:
        """In strips of so many input channels, or as one."""
        width = weight.shape[1] if channels is None else channels
        matrix = _strips(weight.detach().cpu(), width)
        there = (matrix != 0).numpy()
        _, first, group = np.unique(np.packbits(there, axis=1), axis=0, return_index=True, return_inverse=True)
        lengths = there.sum(1)
        reorder = np.lexsort((group.reshape(-1), -lengths))
        ordered = group.reshape(-1)[reorder]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        representatives = first[ordered[starts]]
        columns = np.nonzero(there[representatives])[1]
        kept = matrix[torch.from_numpy(reorder)]
        return cls(
            tuple(weight.shape),
            kept[kept != 0],
            integers(reorder, len(reorder) - 1),
            counted_up(lengths[reorder]),
            integers(np.append(starts, len(reorder)), len(reorder)),
            counted_up(lengths[representatives]),
            integers(columns, matrix.shape[1] - 1),
            width,
        )

    def unpack(self) -> Tensor:
        full = _strips(torch.zeros(self.shape, dtype=self.values.dtype), self.channels)
        group, place = owners(self.occurrence), owners(self.row_offset)
        within = np.arange(len(place)) - self.row_offset.astype(np.int64)[place]
        columns = self.compact_column[self.column_stride.astype(np.int64)[group[place]] + within].astype(np.int64)
        full[torch.from_numpy(self.reorder[place].astype(np.int64)), torch.from_numpy(columns)] = self.values
        return full.reshape(self.shape[1] // self.channels, self.shape[0], -1).transpose(0, 1).reshape(self.shape)


def _strips(weight: Tensor, channels: int) -> Tensor:
    """A copy with a row for every strip and filter."""
    parts = weight.reshape(weight.shape[0], weight.shape[1] // channels, -1)
    return parts.transpose(0, 1).reshape(parts.shape[0] * parts.shape[1], -1).clone()
