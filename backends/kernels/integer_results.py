"""What becomes of int32 sums: epilogues for neighbouring pixels of a row, stored several at a time where they are codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from . import loops
from .epilogue import Epilogue
from .image import View

__all__ = ["store_row"]

Expression = Any
_FOUR = 4

_PACKS = {
    4: ("llvm.x86.sse2.packssdw.128", {"int8": "llvm.x86.sse2.packsswb.128", "uint8": "llvm.x86.sse2.packuswb.128"}),
    8: ("llvm.x86.avx2.packssdw", {"int8": "llvm.x86.avx2.packsswb", "uint8": "llvm.x86.avx2.packuswb"}),
    16: (
        "llvm.x86.avx512.packssdw.512",
        {"int8": "llvm.x86.avx512.packsswb.512", "uint8": "llvm.x86.avx512.packuswb.512"},
    ),
}
"""By lanes: two vectors of int32 as one of int16, and two of those as one of bytes, in parts of 128 bits each."""


def store_row(
    sums: Sequence[Expression],
    epilogue: Epilogue,
    leaves: Sequence[loops.Buffer],
    result: loops.Buffer,
    view: View,
    position: tuple[Any, Any, Any, Any],
    packs: bool,
) -> None:
    """Stores the outputs of neighbouring pixels, the first at `position` (image, block, row, column), given their sums.

    `packs` says whether the machine is x86, whose instructions narrow vectors in pairs.
    """
    image, block, row, left = position
    lanes = view.lanes
    kept = loops.local(len(sums) * lanes, "int32") if _joins(view, len(sums)) else None
    for x, total in enumerate(sums):
        place = (image, block, row, left + x)
        value = epilogue.value(total, leaves, place, lanes)
        if kept is None:
            loops.store(result, view.offset(*place), value, lanes)
        else:
            loops.store(kept, x * lanes, value, lanes)
    if kept is None:
        return
    count = _FOUR if len(sums) >= _FOUR else 2
    # The last ones begin further back, where count does not divide the row.
    for first in sorted({min(x, len(sums) - count) for x in range(0, len(sums), count)}):
        values = [loops.load(kept, (first + x) * lanes, lanes) for x in range(count)]
        joined = _narrowed(values, view.dtype, lanes, packs)
        loops.store(result, view.offset(image, block, row, left + first), joined, count * lanes)


def _joins(view: View, count: int) -> bool:
    """Whether pixels of a row are stored several at a time."""
    return view.is_code and view.lanes > 1 and view.column == view.lanes and count > 1


def _narrowed(values: Sequence[Expression], dtype: str, lanes: int, packs: bool) -> Expression:
    """The pixels of `values` one after the other, in bytes that hold them."""
    if packs and len(values) == _FOUR:
        return _packed(values, dtype, lanes)
    joined = loops.picked(values, range(len(values) * lanes))
    return tirx.Cast(f"{dtype}x{len(values) * lanes}", joined)


def _packed(values: Sequence[Expression], dtype: str, lanes: int) -> Expression:
    """Instructions pack parts of 128 bits by themselves: each then has four channels of the four pixels."""
    halve, quarter = _PACKS[lanes]
    pairs = [tirx.call_llvm_pure_intrin(f"int16x{2 * lanes}", halve, values[at], values[at + 1]) for at in (0, 2)]
    packed = tirx.call_llvm_pure_intrin(f"{dtype}x{4 * lanes}", quarter[dtype], *pairs)
    parts = lanes // _FOUR
    if parts == 1:
        return packed
    words = tirx.reinterpret(f"int32x{lanes}", packed)
    order = [_FOUR * part + pixel for pixel in range(_FOUR) for part in range(parts)]
    return tirx.reinterpret(f"{dtype}x{4 * lanes}", loops.picked([words], order))
