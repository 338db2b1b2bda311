"""What becomes of int32 sums: epilogues for neighbouring pixels of a row, stored several at a time where they are codes.

Where a value becomes a code at the end, it is rounded by the machine's conversion to whole numbers and clamped by instructions
that narrow with saturation, where those are fast. The bits are those of `codes`: rounding to whole numbers and clamping to
whole numbers may change places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from ..graph.nodes import Weights
from . import loops
from .codes import MOVED, SMALL, float_of_moved, rounded_bits
from .epilogue import Epilogue, Operand
from .image import View
from .vectors import Vectors

__all__ = ["moves_sums", "store_own", "store_row", "sums_are_small"]

Expression = Any
Place = tuple[Any, Any, Any, Any]
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
    """How a value becomes a code at the end: ``clamp(rne(value) + zero)``.

    Attributes:
        before: what happens to it first.
        offset: added to a sum that is multiplied by scales, a leaf; None where a float is multiplied by `inverse`.
    """

    before: Epilogue
    zero: int
    low: int
    high: int
    offset: int | None = None
    scales: int = 0
    inverse: float = 1.0

    @classmethod
    def of(cls, epilogue: Epilogue) -> _Codes | None:
        """None where something else happens at the end."""
        if not epilogue.steps:
            return None
        *steps, last = epilogue.steps
        clamped = bool(steps) and steps[-1].function == "relu" and last.operands == (Operand("step", len(steps) - 1),)
        if clamped and last.function == "quantize" and last.parameters[1] == last.parameters[2]:
            # Where the least code is the zero, what is below zero becomes it anyhow.
            last = replace(last, operands=steps.pop().operands)
        before = replace(epilogue, steps=tuple(steps))
        comes = Operand("step", len(steps) - 1) if steps else Operand("anchor")
        if last.function == "quantize" and last.operands == (comes,):
            inverse, zero, low, high = last.parameters
            if low <= zero <= high:  # Else what is not a number would not become the zero.
                return cls(before, int(zero), int(low), int(high), inverse=inverse)
        if last.function == "requantize" and not steps and last.operands == (comes, Operand("leaf", 0)):
            offset, zero, low, high = map(int, last.parameters)
            return cls(before, zero, low, high, offset)
        return None

    @property
    def of_sums(self) -> bool:
        """Whether it is made of a sum, which is a number: what becomes of those that are none depends on instructions."""
        return self.offset is not None

    def scaled(
        self, value: Expression, leaves: Sequence[loops.Buffer], place: Place, lanes: int, moved: bool
    ) -> Expression:
        """In steps of the result's scale, as float32, given what the kernel computed, or that plus `MOVED`."""
        if self.offset is None:
            value = loops.converted(self.before.value(value, leaves, place, lanes), "float32", lanes)
            return value * loops.number(self.inverse, lanes)
        scale = loops.load(leaves[self.scales], self.before.leaves[self.scales].offset(*place), lanes)
        if moved:
            return float_of_moved(Vectors(lanes), value) * scale
        value = value + loops.number(self.offset, lanes, "int32") if self.offset else value
        return loops.converted(value, "float32", lanes) * scale


def moves_sums(epilogue: Epilogue, dot: str) -> bool:
    """Whether kernels for `dot` (`Machine.dot`) whose sums become no more than codes had better begin them with `MOVED`."""
    codes = _Codes.of(epilogue)
    return dot == "sdot" and codes is not None and codes.offset == 0


def sums_are_small(weights: Weights) -> bool:
    """Whether sums of products of codes and the bias are below `SMALL`, whatever the codes are."""
    kernel = weights.kernel.reshape(len(weights.kernel), -1).astype("int64")
    ends = (np.minimum(127 * kernel, -128 * kernel), np.maximum(127 * kernel, -128 * kernel))
    return all(bool((np.abs(weights.bias + end.sum(axis=1)) < SMALL).all()) for end in ends)


def store_row(
    values: Sequence[Expression],
    epilogue: Epilogue,
    leaves: Sequence[loops.Buffer],
    result: loops.Buffer,
    view: View,
    position: Place,
    dot: str,
    moved: bool = False,
) -> None:
    """Stores the outputs of neighbouring pixels, the first at `position` (image, block, row, column), given what the kernel
    computed for each.

    `dot` is the machine's (`Machine.dot`). Where `moved`, these are sums plus `MOVED`.
    """
    image, block, row, left = position
    lanes, count = view.lanes, len(values)
    if not view.is_code or lanes == 1 or view.column != lanes or count == 1:
        values = _moved_back(values, lanes) if moved else values
        for x, value in enumerate(values):
            place = (image, block, row, left + x)
            loops.store(result, view.offset(*place), epilogue.value(value, leaves, place, lanes), lanes)
        return
    for first, count, codes in _codes_of_row(values, epilogue, leaves, view, position, dot, moved):
        loops.store(result, view.offset(image, block, row, left + first), codes, count * lanes)


def store_own(
    values: Sequence[Expression],
    epilogue: Epilogue,
    leaves: Sequence[loops.Buffer],
    result: loops.Buffer,
    view: View,
    position: Place,
    own: tuple[Expression | None, Sequence[Expression | None]],
) -> None:
    """As `store_row`, of codes that floats become: only where the condition for the row holds and those for each pixel; None
    holds always.
    """
    row_is, pixels_are = own
    if all(condition is None for condition in pixels_are):
        with loops.when(row_is):
            store_row(values, epilogue, leaves, result, view, position, epilogue.dot)
        return
    kept = loops.local(len(values) * view.lanes, view.dtype)
    for first, count, codes in _codes_of_row(values, epilogue, leaves, view, position, epilogue.dot):
        loops.store(kept, first * view.lanes, codes, count * view.lanes)
    image, block, row, left = position
    for x, condition in enumerate(pixels_are):
        with loops.when(row_is, condition):
            code = loops.load(kept, x * view.lanes, view.lanes)
            loops.store(result, view.offset(image, block, row, left + x), code, view.lanes)


def _codes_of_row(
    values: Sequence[Expression],
    epilogue: Epilogue,
    leaves: Sequence[loops.Buffer],
    view: View,
    position: Place,
    dot: str,
    moved: bool = False,
) -> Iterator[tuple[int, int, Expression]]:
    """Codes of neighbouring pixels, at least two, as `store_row` stores them: the first and how many of them, and their bytes.
    Where their number does not divide the row, the last ones begin further back.
    """
    image, block, row, left = position
    lanes, count = view.lanes, len(values)
    codes, together = _Codes.of(epilogue), _FOUR if count >= _FOUR else 2
    if codes is None or not (dot in _AARCH64 or (dot in _X86 and together == _FOUR and codes.of_sums)):
        values = _moved_back(values, lanes) if moved else values
        if lanes == _FOUR and epilogue.joins:
            for first, some in _parts(count):
                joined = loops.picked(values[first : first + some], range(some * lanes))
                code = epilogue.value(joined, leaves, (image, block, row, left + first), some * lanes)
                yield first, some, loops.converted(code, view.dtype, some * lanes)
            return
        narrowed = _narrowed(dot, view.dtype, lanes)

        def computed(value: Expression, place: Place) -> Expression:
            return epilogue.value(value, leaves, place, lanes)

    else:
        narrowed = _saturated(codes, dot, view.dtype, lanes)

        def computed(value: Expression, place: Place) -> Expression:
            scaled = codes.scaled(value, leaves, place, lanes, moved)
            return _rounded(codes, scaled, Vectors(lanes, epilogue.keeps_nans), dot)

    kept = loops.local(count * lanes, "int32")
    for x, value in enumerate(values):
        loops.store(kept, x * lanes, computed(value, (image, block, row, left + x)), lanes)
    for first in sorted({min(x, count - together) for x in range(0, count, together)}):
        yield first, together, narrowed([loops.load(kept, (first + x) * lanes, lanes) for x in range(together)])


def _moved_back(values: Sequence[Expression], lanes: int) -> list[Expression]:
    """Sums, given them plus `MOVED`."""
    return [value - loops.number(MOVED, lanes, "int32") for value in values]


def _parts(count: int) -> list[tuple[int, int]]:
    """At least two pixels as parts of four and of two, the first of each and how many: few of them twice."""
    whole, rest = divmod(count, _FOUR)
    parts = [(_FOUR * part, _FOUR) for part in range(whole)]
    last = 2 if rest <= 2 or not whole else _FOUR
    if rest > last:  # Three alone.
        parts.append((0, 2))
    return [*parts, (count - last, last)] if rest else parts


def _narrowed(dot: str, dtype: str, lanes: int) -> Callable[[Sequence[Expression]], Expression]:
    """Codes of pixels (int32) one after the other, in bytes, which hold them."""

    def narrow(values: Sequence[Expression]) -> Expression:
        if dot in _X86 and len(values) == _FOUR:
            return _in_order(_packed(_halved(values, lanes), dtype, lanes), dtype, lanes)
        joined = loops.picked(values, range(len(values) * lanes))
        return tirx.Cast(f"{dtype}x{len(values) * lanes}", joined)

    return narrow


def _rounded(codes: _Codes, value: Expression, vectors: Vectors, dot: str) -> Expression:
    """`value` as int32, half to even; what is too large for a code is so afterwards. For `sdot` it is clamped, and stands in
    the lowest bits: of two vector units one alone makes whole numbers of floats, and takes two cycles for a vector.
    """
    lanes = vectors.lanes
    if dot == "sdot":
        return rounded_bits(vectors, value, codes.low - codes.zero, codes.high - codes.zero)
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
        if dot == "sdot":
            count = len(values) * lanes
            low = tirx.Cast(f"{dtype}x{count}", loops.picked(values, range(count)))
            return low + loops.number(codes.zero, count, dtype) if codes.zero else low
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
