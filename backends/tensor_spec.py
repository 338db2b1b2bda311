"""What one input or output of a compiled model is. Imports neither torch nor TVM, for processes that do without."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ALIGNMENT", "CodeScale", "TensorSpec"]

ALIGNMENT = 64
"""Bytes, of which the places of tensors in memory and in files are multiples: kernels load whole vectors."""


@dataclass(frozen=True)
class CodeScale:
    """What codes stand for: the numbers ``scale * (code - zero_point)``."""

    scale: float
    zero_point: int

    def __str__(self) -> str:
        beside = f" {'-' if self.zero_point > 0 else '+'} {abs(self.zero_point)}" if self.zero_point else ""
        return f"{self.scale!r} * (code{beside})" if beside else f"{self.scale!r} * code"


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy spells it) of an input or output; of one on codes what these stand for."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    codes: CodeScale | None = None

    def __str__(self) -> str:
        kind = f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"
        return kind if self.codes is None else f"{kind} of {self.codes}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it; without codes where there are none."""
        found = asdict(self)
        if self.codes is None:
            del found["codes"]
        return found
