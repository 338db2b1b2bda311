"""Row blocks: R consecutive filters share their columns, so that one load of the input serves R of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import widest
from .boxes import Boxes

__all__ = ["RowBlock"]


@dataclass(frozen=True)
class RowBlock(Boxes):
    """A unit is one column, that is an input channel at a kernel position, of R consecutive filters.

    The number of rows that share a list of columns is what the speed of a sparse kernel depends on; 4 keeps the rate of a dense
    one. The same with two filters or more is 1xN pruning (Lin et al., 2022, arXiv 2105.14713).

    Attributes:
        filters: R.
    """

    form: ClassVar[str] = "row-block:R"

    filters: int = 4

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, 1

    @classmethod
    def recognise(cls, weight: Tensor) -> RowBlock | None:
        return widest(cls, weight)
