"""Connectivity: whole kernels, each from one input channel to one filter (PatDNN: Niu et al., 2020, arXiv 2001.00138)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import LayerShape, widest
from .boxes import Boxes

__all__ = ["Connectivity"]


@dataclass(frozen=True)
class Connectivity(Boxes):
    """A unit is a kernel, or the kernels by which R consecutive filters read one input channel.

    The projection keeps the kernels of the largest norm, in the layer and not filter by filter, as the authors do.

    Attributes:
        filters: R.
    """

    form: ClassVar[str] = "connectivity:R"
    whole: ClassVar[bool] = True

    filters: int = 1

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, 1

    def __str__(self) -> str:
        return f"connectivity:{self.filters}" if self.filters > 1 else "connectivity"

    def fits(self, shape: LayerShape) -> str:
        if shape.positions == 1:
            return "its kernels are single weights"
        return super().fits(shape)

    @classmethod
    def recognise(cls, weight: Tensor) -> Connectivity | None:
        return widest(cls, weight, least=1)
