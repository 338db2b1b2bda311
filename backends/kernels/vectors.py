"""What functions of single elements work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from .loops import number

__all__ = ["Vectors"]

Expression = Any


@dataclass(frozen=True)
class Vectors:
    """What functions of single elements work on: `lanes` elements at a time.

    `keeps_nans` is the machine's (`tiles.Machine`): whether its maximum is NaN where an operand is.
    """

    lanes: int
    keeps_nans: bool = False
    dtype: str = "float32"

    def number(self, value: float, dtype: str | None = None) -> Expression:
        """A literal in every lane, of the elements' type unless another is given."""
        return number(value, self.lanes, dtype or self.dtype)

    def maximum(self, a: Expression, b: Expression) -> Expression:
        """The larger, or NaN where one is NaN.

        TVM's maximum is ``a > b ? a : b``, as x86 has it: NaN gives `b`. So a literal comes first.
        """
        return self._extreme("llvm.maximum", tirx.max, a, b)

    def minimum(self, a: Expression, b: Expression) -> Expression:
        """The smaller, or NaN where one is NaN."""
        return self._extreme("llvm.minimum", tirx.min, a, b)

    def _extreme(self, name: str, extreme: Callable[..., Expression], a: Expression, b: Expression) -> Expression:
        if self.keeps_nans:
            return tirx.call_llvm_pure_intrin(a.ty, name, a, b)
        first, second = (b, a) if _is_literal(b) else (a, b)
        found = extreme(first, second)
        return found if _is_literal(first) else tirx.Select(tirx.isnan(first), first, found)


def _is_literal(x: Expression) -> bool:
    return isinstance(x.value if isinstance(x, tirx.Broadcast) else x, tirx.FloatImm)
