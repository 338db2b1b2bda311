"""Unstructured zeros: any weights (Han et al., 2015, arXiv 1506.02626; of convolutions on CPUs FSCNN, arXiv 2212.08815)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .boxes import Boxes

__all__ = ["Unstructured"]


@dataclass(frozen=True)
class Unstructured(Boxes):
    """Every weight by itself: the projection keeps those of the largest absolute value. Stored as CSR."""

    form: ClassVar[str] = "unstructured"

    @property
    def box(self) -> tuple[int, int]:
        return 1, 1

    @classmethod
    def recognise(cls, weight: Tensor) -> Unstructured | None:
        return cls() if bool((weight == 0).any()) else None
