"""Sums of products of codes by instruction set: which vectors are multiplied, and how weights lie for that.

A step is so many channels of a pixel as one instruction sums for every output: four bytes, or two numbers of 16 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from . import loops

__all__ = ["Products", "products_of"]

Expression = Any

_SPREAD_SUMS = {
    4: "llvm.x86.avx512.vpdpbusd.128",
    8: "llvm.x86.avx512.vpdpbusd.256",
    16: "llvm.x86.avx512.vpdpbusd.512",
}
"""Bytes of one factor have no sign. Takes AVX512-VNNI, with AVX512-VL below 16 lanes, or AVX-VNNI."""
_PAIR_SUMS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_DOT_BY_LANE = "llvm.aarch64.neon.sdot.v4i32.v16i8"
_ADD_PAIRS = {"sadalp": "llvm.aarch64.neon.saddlp.v4i32.v8i16", "vpadal": "llvm.arm.neon.vpadals.v4i32.v8i16"}


@dataclass(frozen=True)
class Products:
    """How products of codes are added to vectors of int32 sums.

    Attributes:
        kind: as in `Machine.dot`.
        lanes: sums in a vector.
        channels: of a pixel that a step multiplies.
        weights: the type of weights in memory.
        widened: whether pixels are read as int16, so that they have to be made that before.
        by_lane: whether four steps are loaded as one vector, of which products take one lane.
    """

    kind: str
    lanes: int
    channels: int = 4
    weights: str = "int8"
    widened: bool = False
    by_lane: bool = False

    @property
    def row(self) -> int:
        """Weights of a step for the outputs of a block."""
        return self.channels * self.lanes

    def arranged(self, steps: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Weights ``(..., lanes, channels)`` as they lie in memory."""
        if self.kind in _ADD_PAIRS:  # The first two channels of all outputs, then the other two.
            steps = steps.reshape(*steps.shape[:-1], 2, 2).swapaxes(-3, -2)
        return steps.reshape(*steps.shape[: -(3 if self.kind in _ADD_PAIRS else 2)], self.row)

    def spread(self, source: loops.Buffer, place: Expression) -> list[Expression]:
        """The step at `place` of a source, for every lane. Codes that were widened lie in pairs, an int32 each."""
        if self.kind == "vpadal":
            # Lanes of 16 bits would be taken by way of other registers; loads that spread what they load do it at once.
            pairs = [tirx.reinterpret("int16", loops.load(source, place + 2 * half, 2)) for half in (0, 1)]
            return [tirx.reinterpret("int8x8", loops.broadcast(pair, 4)) for pair in pairs]
        step = loops.load(source, place) if self.widened else tirx.reinterpret("int32", loops.load(source, place, 4))
        if self.kind == "sadalp":
            return self.lane(loops.broadcast(step, 4), 0)
        return [tirx.reinterpret(self._factors(), loops.broadcast(step, self.lanes))]

    def lane(self, four: Expression, number: int) -> list[Expression]:
        """Step `number` of a vector of four (int32x4), for every lane."""
        if self.kind != "sadalp":
            return [tirx.reinterpret("int8x16", loops.broadcast(loops.lane(four, number), 4))]
        pairs = tirx.reinterpret("int16x8", four)
        halves = [loops.broadcast(loops.lane(pairs, 2 * number + half), 4) for half in (0, 1)]
        return [tirx.reinterpret("int8x8", half) for half in halves]

    def load(self, weights: loops.Buffer, place: Expression) -> list[Expression]:
        """The weights of a step for the outputs of a block."""
        if self.kind in _ADD_PAIRS:
            return [loops.load(weights, place + 8 * half, 8) for half in (0, 1)]
        return [loops.load(weights, place, self.row)]

    def add(self, sums: Expression, pixel: Sequence[Expression], weights: Sequence[Expression]) -> Expression:
        """`sums` and the products of a step."""
        if self.kind == "vnni":
            return self._call(_SPREAD_SUMS[self.lanes], sums, pixel[0], weights[0])
        if self.kind == "sdot":  # The instruction takes a lane as its last factor only.
            return self._call(_DOT_BY_LANE, sums, weights[0], pixel[0])
        if self.kind == "pmaddwd":
            return loops.fenced(sums + self._call(_PAIR_SUMS[self.lanes], pixel[0], weights[0]), self.lanes)
        # Of two products each is at most 127 * 128: their sum fits 16 bits.
        first, second = (tirx.Cast("int16x8", w) * tirx.Cast("int16x8", x) for w, x in zip(weights, pixel, strict=True))
        return self.add_pairs(sums, first + second)

    def add_pairs(self, sums: Expression, pairs: Expression) -> Expression:
        """`sums` and the sums of neighbours of eight int16."""
        name = _ADD_PAIRS[self.kind]
        return (
            self._call(name, sums, pairs) if self.kind == "vpadal" else loops.fenced(sums + self._call(name, pairs), 4)
        )

    def _call(self, name: str, *operands: Expression) -> Expression:
        return tirx.call_llvm_pure_intrin(f"int32x{self.lanes}", name, *operands)

    def _factors(self) -> str:
        if self.widened:
            return f"int16x{2 * self.lanes}"
        return f"{'uint8' if self.kind == 'vnni' else 'int8'}x{4 * self.lanes}"


def products_of(kind: str, lanes: int) -> Products:
    """Those of a kind (`Machine.dot`)."""
    if kind == "pmaddwd":
        return Products(kind, lanes, 2, "int16", widened=True)
    return Products(kind, lanes, by_lane=kind in ("sdot", "sadalp"))


def weights_of(steps: npt.NDArray[Any], products: Products) -> npt.NDArray[Any]:
    """Weights ``(..., lanes, channels)`` of any type, flat in memory and as instructions take them."""
    return np.ascontiguousarray(products.arranged(steps)).astype(products.weights).reshape(-1)
