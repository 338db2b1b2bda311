"""Products of codes two at a time on cores whose registers hold a word: 32-bit ARM with the DSP extension.

A word of four codes is widened to two pairs of 16 bits, those of the first and third code and of the second and fourth. One
instruction multiplies two pairs and adds both products to a sum of 32 bits.

Source: Arm, Cortex-M4 devices generic user guide (DUI 0553), 3.5 and 3.6: SXTB16, SMLAD, SMLAxy.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from . import loops

__all__ = ["CODES", "DOT", "add_pair", "add_product", "kept", "pairs", "word"]

Expression = Any

DOT = "smlad"
"""Of machines with these instructions, `Machine.dot`."""
CODES = 4
"""Codes in a word."""


def word(buffer: loops.Buffer, place: Expression) -> Expression:
    """Four neighbouring codes from `place`, which need not be aligned."""
    return tirx.reinterpret("int32", loops.load(buffer, place, CODES))


def pairs(codes: Expression) -> tuple[Expression, Expression]:
    """Of a word's codes the first and third, and the second and fourth, in registers."""
    codes = kept(codes)
    turned = _call("llvm.fshr.i32", codes, codes, tirx.const(8, "int32"))
    return kept(_call("llvm.arm.sxtb16", codes)), kept(_call("llvm.arm.sxtb16", turned))


def add_pair(total: Expression, first: Expression, second: Expression) -> Expression:
    """`total` and both products of two pairs."""
    return _call("llvm.arm.smlad", first, second, total)


def add_product(total: Expression, pair: Expression, high: bool, other: Expression) -> Expression:
    """`total` and the product of the low or the high number of a pair with the low one of another."""
    return _call("llvm.arm.smlatb" if high else "llvm.arm.smlabb", pair, other, total)


def kept(value: Expression) -> Expression:
    """`value`, an int32, in a register, so that reading it twice does not compute it twice."""
    register = loops.local(1, "int32")
    loops.store(register, 0, value)
    return loops.load(register, 0)


def _call(name: str, *operands: Expression) -> Expression:
    return tirx.call_llvm_pure_intrin("int32", name, *operands)
