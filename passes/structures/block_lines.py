"""Columns, or rows, of blocks of the weight's matrix (BLK-REW: Ma et al., 2020, arXiv 2001.08357).

The matrix of a layer has one row a filter, and one column an input channel at a kernel position. It is cut into blocks of
equal size, and inside every block whole columns, or whole rows, are zero; all those of a layer are ranked together, so that
some blocks lose more than others. Both at once, as many in every block, is `bcr`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import widest
from .boxes import Boxes

__all__ = ["BlockColumn", "BlockRow"]


@dataclass(frozen=True)
class BlockColumn(Boxes):
    """A unit is one column of a block of P rows: a row block, in the sizes that matrices of linear and recurrent layers like.

    How many columns a block has does not matter, because they are ranked over the layer. Zeros of this kind are recognised
    as row blocks.

    Attributes:
        filters: P.
    """

    form: ClassVar[str] = "block-column:P"

    filters: int = 16

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, 1

    @classmethod
    def recognise(cls, weight: Tensor) -> BlockColumn | None:
        return widest(cls, weight)


@dataclass(frozen=True)
class BlockRow(Boxes):
    """A unit is one row of a block of Q input channels with all their kernel positions.

    Attributes:
        channels: Q.
    """

    form: ClassVar[str] = "block-row:Q"
    whole: ClassVar[bool] = True

    channels: int = 8

    @property
    def box(self) -> tuple[int, int]:
        return 1, self.channels

    @classmethod
    def recognise(cls, weight: Tensor) -> BlockRow | None:
        return widest(cls, weight)
