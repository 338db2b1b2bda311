"""What one input or output of a compiled model is. Imports neither torch nor TVM, for processes that do without."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALIGNMENT", "TensorSpec"]

ALIGNMENT = 64
"""Bytes, of which the places of tensors in memory and in files are multiples: kernels load whole vectors."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy spells it) of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"
