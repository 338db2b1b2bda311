"""What becomes of int32 sums: epilogues for neighbouring pixels of a row, stored several at a time where they are codes.

Where all that happens to a sum is that it becomes a code, it is rounded by the machine's conversion to whole numbers and
clamped by instructions that narrow with saturation. The bits are those of `codes`: rounding to whole numbers and clamping to
whole numbers may change places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from . import loops
from .epilogue import Epilogue, Operand
from .image import View

__all__ = ["store_row"]

Expression = Any
_FOUR = 4

_X86, _AARCH64 = frozenset({"vnni", "pmaddwd"}), frozenset({"sdot", "sadalp"})
"""Kinds of products (`Machine.dot`) by architecture."""
_PACKS = {
    4: ("llvm.x86.sse2.packssdw.128", {"int8": "llvm.x86.sse2.packsswb.128", "uint8": "llvm.x86.sse2.packuswb.128"}),
    8: ("llvm.x86.avx2.packssdw", {"int8": "llvm.x86.avx2.packsswb", "uint8": "llvm.x86.avx2.packuswb"}),
    16: (
        "llvm.x86.avx512.packssdw.512",
        {"int8": "llvm.x86.avx512.packsswb.512", "uint8": "llvm.x86.avx512.packuswb.512"},
    ),
}
"""By lanes: two vectors of int32 as one of int16, and two of those as one of bytes, in parts of 128 bits each."""
_CONVERTED = {4: "llvm.x86.sse2.cvtps2dq", 8: "llvm.x86.avx.cvt.ps2dq.256", 16: "llvm.x86.avx512.mask.cvtps2dq.512"}
"""Floats to whole numbers, half to even. What does not fit becomes the least int32."""
_EMBEDDED_NONE = 4
"""As the last operand of the 512-bit conversion: rounding as it is set for the thread."""
_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


@dataclass(frozen=True)
class _Codes:
    """How a sum becomes a code if that is all: ``clamp(rne(float32(sum + offset) * scale) + zero)``."""

    offset: int
    zero: int
    low: int
    high: int

    @classmethod
    def of(cls, epilogue: Epilogue) -> _Codes | None:
        """None where something else happens to sums."""
        if len(epilogue.steps) != 1:
            return None
        (step,) = epilogue.steps
        plain = step.function == "requantize" and step.operands == (Operand("anchor"), Operand("leaf", 0))
        return cls(*(int(value) for value in step.parameters)) if plain else None

    def scaled(self, total: Expression, scale: Expression, lanes: int) -> Expression:
        """In steps of the result's scale."""
        total = total + loops.number(self.offset, lanes, "int32") if self.offset else total
        return loops.converted(total, "float32", lanes) * scale


def store_row(
    sums: Sequence[Expression],
    epilogue: Epilogue,
    leaves: Sequence[loops.Buffer],
    result: loops.Buffer,
    view: View,
    position: tuple[Any, Any, Any, Any],
    dot: str,
) -> None:
    """Stores the outputs of neighbouring pixels, the first at `position` (image, block, row, column), given their sums.

    `dot` is the machine's (`Machine.dot`).
    """
    image, block, row, left = position
    lanes, count = view.lanes, len(sums)
    if not view.is_code or lanes == 1 or view.column != lanes or count == 1:
        for x, total in enumerate(sums):
            place = (image, block, row, left + x)
            loops.store(result, view.offset(*place), epilogue.value(total, leaves, place, lanes), lanes)
        return
    together = _FOUR if count >= _FOUR else 2
    kept = loops.local(count * lanes, "int32")
    codes = _Codes.of(epilogue)
    if codes is not None and (dot in _AARCH64 or (dot in _X86 and together == _FOUR)):
        scale = loops.load(leaves[0], epilogue.leaves[0].offset(*position), lanes)
        for x, total in enumerate(sums):
            loops.store(kept, x * lanes, _rounded(codes, codes.scaled(total, scale, lanes), lanes, dot), lanes)
        narrowed = _saturated(codes, dot, view.dtype, lanes)
    else:
        for x, total in enumerate(sums):
            loops.store(kept, x * lanes, epilogue.value(total, leaves, (image, block, row, left + x), lanes), lanes)
        narrowed = _narrowed(dot, view.dtype, lanes)
    # The last ones begin further back, where their number does not divide the row.
    for first in sorted({min(x, count - together) for x in range(0, count, together)}):
        values = [loops.load(kept, (first + x) * lanes, lanes) for x in range(together)]
        loops.store(result, view.offset(image, block, row, left + first), narrowed(values), together * lanes)


def _narrowed(dot: str, dtype: str, lanes: int) -> Callable[[Sequence[Expression]], Expression]:
    """Codes of pixels (int32) one after the other, in bytes, which hold them."""

    def narrow(values: Sequence[Expression]) -> Expression:
        if dot in _X86 and len(values) == _FOUR:
            return _in_order(_packed(_halved(values, lanes), dtype, lanes), dtype, lanes)
        joined = loops.picked(values, range(len(values) * lanes))
        return tirx.Cast(f"{dtype}x{len(values) * lanes}", joined)

    return narrow


def _rounded(codes: _Codes, value: Expression, lanes: int, dot: str) -> Expression:
    """`value` as int32, half to even; what is too large for a code is so afterwards."""
    if dot in _AARCH64:
        return _call("int32", lanes, "llvm.aarch64.neon.fcvtns.v4i32.v4f32", value)
    # The conversion would make the least number of one that is too large, and does make it of one that is too small.
    value = tirx.min(loops.number(float(codes.high - codes.zero), lanes), value)
    if lanes < 4 * _FOUR:
        return _call("int32", lanes, _CONVERTED[lanes], value)
    rest = (loops.number(0, lanes, "int32"), tirx.const(-1, "int16"), tirx.const(_EMBEDDED_NONE, "int32"))
    return _call("int32", lanes, _CONVERTED[lanes], value, *rest)


def _saturated(codes: _Codes, dot: str, dtype: str, lanes: int) -> Callable[[Sequence[Expression]], Expression]:
    """Rounded values of pixels one after the other, the zero added, clamped, in bytes."""

    def narrow(values: Sequence[Expression]) -> Expression:
        if dot in _X86:
            halves = [_moved(codes, half, 2 * lanes) for half in _halved(values, lanes)]
            return _in_order(_clamped(codes, _packed(halves, dtype, lanes), dtype, 4 * lanes), dtype, lanes)
        short = [_call("int16", lanes, "llvm.aarch64.neon.sqxtn.v4i16", value) for value in values]
        bytes_of = []
        for at in range(0, len(short), 2):
            half = _moved(codes, loops.picked(short[at : at + 2], range(2 * lanes)), 2 * lanes)
            bytes_of.append(_call("int8", 2 * lanes, "llvm.aarch64.neon.sqxtn.v8i8", half))
        joined = loops.picked(bytes_of, range(len(values) * lanes)) if len(bytes_of) > 1 else bytes_of[0]
        return _clamped(codes, joined, dtype, len(values) * lanes)

    return narrow


def _moved(codes: _Codes, half: Expression, lanes: int) -> Expression:
    """Int16 with the result's zero added."""
    zero = loops.number(codes.zero, lanes, "int16")
    return _call("int16", lanes, f"llvm.sadd.sat.v{lanes}i16", half, zero) if codes.zero else half


def _clamped(codes: _Codes, value: Expression, dtype: str, lanes: int) -> Expression:
    """Bytes clamped where the type's own ends do not do that."""
    least, most = _RANGES[dtype]
    if codes.low > least:
        value = tirx.max(value, loops.number(codes.low, lanes, dtype))
    return tirx.min(value, loops.number(codes.high, lanes, dtype)) if codes.high < most else value


def _halved(values: Sequence[Expression], lanes: int) -> list[Expression]:
    """Four vectors of int32 as two of int16, by parts of 128 bits."""
    return [_call("int16", 2 * lanes, _PACKS[lanes][0], values[at], values[at + 1]) for at in (0, 2)]


def _packed(halves: Sequence[Expression], dtype: str, lanes: int) -> Expression:
    """Two vectors of int16 as one of bytes: each part of 128 bits then has four channels of the four pixels."""
    return _call(dtype, 4 * lanes, _PACKS[lanes][1][dtype], *halves)


def _in_order(packed: Expression, dtype: str, lanes: int) -> Expression:
    """What `_packed` gives, pixel after pixel."""
    parts = lanes // _FOUR
    if parts == 1:
        return packed
    words = tirx.reinterpret(f"int32x{lanes}", packed)
    order = [_FOUR * part + pixel for pixel in range(_FOUR) for part in range(parts)]
    return tirx.reinterpret(f"{dtype}x{4 * lanes}", loops.picked([words], order))


def _call(dtype: str, lanes: int, name: str, *operands: Expression) -> Expression:
    return tirx.call_llvm_pure_intrin(f"{dtype}x{lanes}", name, *operands)
