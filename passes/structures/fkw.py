"""FKW, filter-kernel-weight: how PatDNN stores kernels with patterns (Niu et al., 2020, arXiv 2001.00138)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .packed import Integers, Packed, counted_up, integers, owners

__all__ = ["KernelWeights"]


@dataclass(frozen=True, eq=False)
class KernelWeights(Packed):
    """The five arrays of the format, and the table of patterns.

    Filters are ordered by how many kernels they have, those with most first (filter kernel reorder); the kernels of a filter
    by their pattern, then by input channel, so that nothing depends on the pattern within a run of kernels.
    """

    name: ClassVar[str] = "fkw"

    offset: Integers
    """Of the kernels of every reordered filter, and the end: filters + 1."""
    reorder: Integers
    """Which filter stands at each place."""
    index: Integers
    """The input channel of every kernel."""
    stride: Integers
    """Of every reordered filter, how many kernels come before those of each pattern, and all: filters x (patterns + 1)."""
    table: Integers
    """The positions of every pattern in a kernel of 3x3: patterns x 4."""

    @classmethod
    def pack(cls, weight: Tensor, patterns: tuple[int, ...]) -> KernelWeights:
        """`patterns` are numbers whose bits are kernel positions, 4 each."""
        weight = weight.detach().cpu()
        filters, channels = weight.shape[:2]
        there = (weight != 0).reshape(filters, channels, 9).numpy()
        numbers = (there * (1 << np.arange(9))).sum(-1)
        row, channel = np.nonzero(numbers)
        pattern = np.searchsorted(patterns, numbers[row, channel])
        counts = np.bincount(row, minlength=filters)
        reorder = np.argsort(-counts, kind="stable")
        place = np.argsort(reorder)
        order = np.lexsort((channel, pattern, place[row]))
        by_pattern = np.zeros((filters, len(patterns)), np.int64)
        np.add.at(by_pattern, (place[row], pattern), 1)
        stride = np.concatenate([np.zeros((filters, 1), np.int64), by_pattern.cumsum(1)], 1)
        table = np.array([_positions(number) for number in patterns]).reshape(-1, 4)
        kernels = weight.reshape(-1, 9)[torch.from_numpy((row * channels + channel)[order])]
        return cls(
            tuple(weight.shape),
            kernels.gather(1, torch.from_numpy(table[pattern[order]])).reshape(-1),
            counted_up(counts[reorder]),
            integers(reorder, filters - 1),
            integers(channel[order], channels - 1),
            integers(stride, channels),
            integers(table, 8),
        )

    def unpack(self) -> Tensor:
        filters, channels = self.shape[:2]
        place = owners(self.offset)
        within = np.arange(len(place)) - self.offset.astype(np.int64)[place]
        # The run of a kernel's pattern is the last that begins at or before it.
        pattern = (self.stride[place, 1:] <= within[:, None]).sum(1)
        row = self.reorder[place].astype(np.int64) * channels + self.index
        full = torch.zeros(filters * channels, 9, dtype=self.values.dtype)
        positions = torch.from_numpy(self.table[pattern].astype(np.int64).reshape(-1, 4))
        full[torch.from_numpy(row)[:, None], positions] = self.values.reshape(-1, 4)
        return full.reshape(self.shape)


def _positions(number: int) -> list[int]:
    return [position for position in range(9) if number >> position & 1]
