"""The types of elements, in one table: what they are called where, what they take, and what their sums are kept in.

Imports neither torch nor TVM, for processes that do without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["DTYPES", "DType", "tensor_bytes", "torch_dtype"]

_INTEGER, _UNSIGNED, _FLOAT, _BFLOAT, _COMPLEX, _BOOL = 0, 1, 2, 4, 5, 6
"""DLPack's codes of kinds (dlpack.h, ``DLDataTypeCode``)."""


@dataclass(frozen=True)
class DType:
    """A type of elements.

    Attributes:
        name: NumPy's, PyTorch's and TVM's.
        bytes: of an element.
        code: DLPack's code of its kind.
        c: the C type of its memory; None where C has none.
        npy: how the header of a ``.npy`` file describes it on a little-endian machine; None where it has no word for it.
        wire: its name in the open inference protocol; None where it has none.
        accumulator: the type that sums of its products are kept in.
        partial: a narrower type that some products are added in before; None where there is none. Twice as many lanes of it
            are multiplied at a time, and what is lost grows with the length of such a sum.
        tolerance: by which a compiled output may be off: of its largest value, or of its entries for other than
            floating-point numbers, as rounding changes an index where values are nearly equal.
    """

    name: str
    bytes: int
    code: int
    c: str | None
    npy: str | None
    wire: str | None
    accumulator: str
    tolerance: float = 1e-2
    partial: str | None = None

    @property
    def is_floating_point(self) -> bool:
        return self.code in (_FLOAT, _BFLOAT)

    @property
    def is_code(self) -> bool:
        """Whether it holds the codes of quantised values, which are computed with in `accumulator`."""
        return self.name in ("int8", "uint8")


_TABLE = (
    DType("float64", 8, _FLOAT, "double", "<f8", "FP64", "float64"),
    DType("float32", 4, _FLOAT, "float", "<f4", "FP32", "float32"),
    DType("float16", 2, _FLOAT, "uint16_t", "<f2", "FP16", "float32", partial="float16"),
    DType("bfloat16", 2, _BFLOAT, None, None, None, "float32"),
    DType("int64", 8, _INTEGER, "int64_t", "<i8", "INT64", "int64"),
    DType("int32", 4, _INTEGER, "int32_t", "<i4", "INT32", "int64"),
    DType("int16", 2, _INTEGER, "int16_t", "<i2", "INT16", "int32"),
    DType("int8", 1, _INTEGER, "int8_t", "|i1", "INT8", "int32"),
    DType("uint64", 8, _UNSIGNED, None, None, "UINT64", "uint64"),
    DType("uint32", 4, _UNSIGNED, None, None, "UINT32", "uint64"),
    DType("uint16", 2, _UNSIGNED, None, None, "UINT16", "uint32"),
    DType("uint8", 1, _UNSIGNED, "uint8_t", "|u1", "UINT8", "int32"),
    DType("bool", 1, _BOOL, "uint8_t", "|b1", "BOOL", "int64"),
    DType("complex64", 8, _COMPLEX, None, None, None, "complex64"),
    DType("complex128", 16, _COMPLEX, None, None, None, "complex128"),
)

DTYPES: Mapping[str, DType] = {kind.name: kind for kind in _TABLE}
"""All that inputs, outputs, weights and the values between kernels can be, by name."""


def tensor_bytes(shape: Sequence[int], dtype: str) -> int:
    """How many bytes a tensor of this shape and dtype has."""
    return math.prod(shape) * DTYPES[dtype].bytes


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's type of that name."""
    import torch

    kind: torch.dtype = getattr(torch, DTYPES[name].name)
    return kind
