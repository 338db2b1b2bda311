"""BCR, block-based column and row zeros: every block of the weight's matrix loses columns and rows of its own.

GRIM (Niu et al., 2021, arXiv 2108.11033) for convolutions, linear and recurrent layers alike; BLK-REW (arXiv 2001.08357) has
the same blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .base import LayerShape, Structure, check_share, first_index, multiple_of, named_unit, widest
from .bcrc import ColumnGroups
from .ranking import highest_of_each

__all__ = ["BlockColumnsRows"]

_MOST_CHOICES = 256
"""Up to so many choices of rows, or of columns, all are compared."""
_MOST_SUMS = 1 << 22
_MOST_TURNS = 16


@dataclass(frozen=True)
class BlockColumnsRows(Structure):
    """Of every block of P filters x Q input channels with all kernel positions, as many columns and as many rows stay.

    A share of d that stays is the square root of d of the rows, and as many columns as then come nearest. Which rows and
    columns retain most is a hard problem (a densest part of a bipartite graph). `mask` compares all choices of the rows,
    or of the columns, if there are at most 256, as in blocks of 8 filters: the projection is exact then. In larger blocks
    it takes the columns of the largest norms, then the rows, as GRIM does, and goes on in turns while that retains more.

    Attributes:
        filters: P.
        channels: Q; a column of a block is one of its channels at one kernel position.
    """

    form: ClassVar[str] = "bcr:PxQ"

    filters: int = 16
    channels: int = 8

    def unit_weights(self, shape: LayerShape) -> int:
        return self.filters

    def fits(self, shape: LayerShape) -> str:
        return multiple_of(shape, self.filters, self.channels)

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Of the columns of every block: filters/P x channels/Q x columns of a block."""
        return self._blocks(scores).sum(2)

    def lasso_groups(self, scores: Tensor) -> tuple[Tensor, ...]:
        """The columns of every block, and its rows."""
        blocks = self._blocks(scores)
        return blocks.sum(2), blocks.sum(3)

    def kept(self, columns: int, sparsity: float) -> tuple[int, int]:
        """How many columns and rows of a block stay, of so many columns."""
        rows = max(1, round(self.filters * math.sqrt(1 - sparsity)))
        return min(columns, max(1, round((1 - sparsity) * columns * self.filters / rows))), rows

    def mask(self, scores: Tensor, sparsity: float) -> Tensor:
        check_share(sparsity)
        blocks = self._blocks(scores)
        rows, columns, filters, width = blocks.shape
        kept_columns, kept_rows = self.kept(width, sparsity)
        flat = blocks.reshape(-1, filters, width)
        if min(math.comb(filters, kept_rows), math.comb(width, kept_columns)) <= _MOST_CHOICES:
            chosen = _of_all_choices(flat, kept_rows, kept_columns)
        else:
            chosen = _by_turns(flat, kept_rows, kept_columns)
        parts = chosen.reshape(rows, columns, filters, self.channels, -1)
        return parts.transpose(1, 2).reshape(scores.shape)

    def broken(self, weight: Tensor) -> str:
        there = self._blocks(weight != 0)
        product = there.any(3, keepdim=True) & there.any(2, keepdim=True)
        wrong = (there != product).any(3).any(2)
        if not bool(wrong.any()):
            return ""
        row, column = first_index(wrong)
        where = named_unit(
            filter=(row * self.filters, self.filters), input_channel=(column * self.channels, self.channels)
        )
        return f"{where}: more is zero than whole rows and columns of the block"

    @classmethod
    def recognise(cls, weight: Tensor) -> BlockColumnsRows | None:
        """In blocks of 4 filters or more, where most that are not empty have several rows and columns: fewer say nothing.

        First of as many channels as there can be, then of as many filters.
        """
        channels = widest(lambda size: cls(4, size), weight, least=1)
        found = channels and widest(lambda size: cls(size, channels.channels), weight, least=4)
        return found if found is not None and found._says_something(weight) else None

    def pack(self, weight: Tensor) -> ColumnGroups:
        return ColumnGroups.pack(weight, self.channels)

    def _blocks(self, scores: Tensor) -> Tensor:
        """filters/P x channels/Q x P x columns of a block."""
        rows, columns = scores.shape[0] // self.filters, scores.shape[1] // self.channels
        parts = scores.reshape(rows, self.filters, columns, self.channels, -1)
        return parts.transpose(1, 2).reshape(rows, columns, self.filters, -1)

    def _says_something(self, weight: Tensor) -> bool:
        there = self._blocks(weight != 0)
        rows, columns = there.any(3).sum(2), there.any(2).sum(2)
        blocks = (rows > 0).sum()
        return bool(2 * ((rows > 1) & (columns > 1)).sum() > blocks)


def _by_turns(blocks: Tensor, rows: int, columns: int) -> Tensor:
    """Columns of every block, rows among these, columns among these rows, and so on while more is retained."""
    kept_rows = torch.ones_like(blocks[:, :, 0], dtype=torch.bool)
    retained = torch.full_like(blocks[:, 0, 0], -torch.inf)
    best = torch.zeros_like(blocks, dtype=torch.bool)
    for _ in range(_MOST_TURNS):
        kept_columns = highest_of_each((blocks * kept_rows[:, :, None]).sum(1), columns)
        kept_rows = highest_of_each((blocks * kept_columns[:, None]).sum(2), rows)
        chosen = kept_rows[:, :, None] & kept_columns[:, None]
        total = (blocks * chosen).sum((1, 2))
        better = total > retained
        if not bool(better.any()):
            break
        best = torch.where(better[:, None, None], chosen, best)
        retained = torch.where(better, total, retained)
    return best


def _of_all_choices(blocks: Tensor, rows: int, columns: int) -> Tensor:
    """The best rows and columns of every block, exactly: for a choice of one, the best of the other are the highest sums."""
    if math.comb(blocks.shape[1], rows) > math.comb(blocks.shape[2], columns):
        return _of_all_choices(blocks.transpose(1, 2), columns, rows).transpose(1, 2)
    choices = np.zeros((math.comb(blocks.shape[1], rows), blocks.shape[1]), bool)
    for choice, chosen in zip(choices, combinations(range(blocks.shape[1]), rows), strict=True):
        choice[list(chosen)] = True
    table = torch.from_numpy(choices).to(blocks.device)
    # Not all choices of all blocks at once: they would not fit into memory.
    parts = blocks.split(max(1, _MOST_SUMS // (len(choices) * blocks.shape[2])))
    return torch.cat([_best_choice(part, table, columns) for part in parts])


def _best_choice(blocks: Tensor, choices: Tensor, columns: int) -> Tensor:
    sums = choices.to(blocks.dtype) @ blocks
    best = sums.topk(columns, dim=2).values.sum(2).argmax(1)
    kept = highest_of_each(sums[torch.arange(len(blocks), device=best.device), best], columns)
    return choices[best][:, :, None] & kept[:, None]
