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

    `keeps_nans` is the machine's (`tiles.Machine`): whether its maximum is NaN where an operand is. `rounds`: whether it has an
    instruction that makes whole numbers of float32, half to even, the nearest there is of what is too large, and 0 of NaN.
    `saturates`: whether 32-bit ARM's does that, for single numbers, and its sums of such numbers are the nearest there are.
    """

    lanes: int
    keeps_nans: bool = False
    dtype: str = "float32"
    rounds: bool = False
    saturates: bool = False

    def number(self, value: float, dtype: str | None = None) -> Expression:
        """A literal in every lane, of the elements' type unless another is given."""
        return number(value, self.lanes, dtype or self.dtype)

    def rounded(self, value: Expression) -> Expression:
        """float32 as int32, where the machine `rounds` or `saturates`."""
        if self.saturates:
            bits = tirx.call_llvm_pure_intrin("float32", "llvm.arm.vcvtr.f32", value)
            return tirx.reinterpret("int32", bits)
        suffix = f"v{self.lanes}f32" if self.lanes > 1 else "f32"
        even = tirx.call_llvm_pure_intrin(value.ty, f"llvm.roundeven.{suffix}", value)
        whole = f"int32x{self.lanes}" if self.lanes > 1 else "int32"
        return tirx.call_llvm_pure_intrin(whole, f"llvm.fptosi.sat.{suffix.replace('f', 'i')}.{suffix}", even)

    def saturated_sum(self, a: Expression, b: Expression) -> Expression:
        """Of two int32, or the nearest int32 there is."""
        return tirx.call_llvm_pure_intrin("int32", "llvm.sadd.sat.i32", a, b)

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
