"""Block-punched zeros: P filters x Q input channels lose the same kernel position (YOLObile, arXiv 2009.05697; used per layer
by Automatic Mapping, arXiv 2111.11581)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import widest
from .boxes import Boxes

__all__ = ["BlockPunched", "DotUnits"]


@dataclass(frozen=True)
class BlockPunched(Boxes):
    """A unit is one kernel position of P filters x Q input channels.

    Its score is the sum over all of its weights; the authors add up, over the channels, the norms over the filters.

    Attributes:
        filters: P.
        channels: Q.
    """

    form: ClassVar[str] = "block-punched:PxQ"

    filters: int = 8
    channels: int = 4

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, self.channels

    @classmethod
    def recognise(cls, weight: Tensor) -> BlockPunched | None:
        """With two filters and two channels or more; first as many filters as share, then as many channels."""
        filters = widest(lambda size: cls(size, 2), weight)
        return None if filters is None else widest(lambda size: cls(filters.filters, size), weight)


@dataclass(frozen=True)
class DotUnits(Boxes):
    """A unit is 4 consecutive input channels of R filters at one kernel position: what one instruction of an int8 dot product
    (AVX512-VNNI's ``vpdpbusd``, Arm's ``sdot``) takes, which can therefore be left out.

    Zeros of this kind with two filters or more are recognised as block-punched.

    Attributes:
        filters: R.
    """

    form: ClassVar[str] = "dot:R"
    channels: ClassVar[int] = 4

    filters: int = 4

    @property
    def box(self) -> tuple[int, int]:
        return self.filters, self.channels

    @classmethod
    def recognise(cls, weight: Tensor) -> DotUnits | None:
        return widest(cls, weight, least=1)
