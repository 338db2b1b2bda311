"""Instructions that multiply and add whole vectors, or registers on cores without vectors: what bounds a kernel from below."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["PRODUCTS", "Product", "product_of"]


@dataclass(frozen=True)
class Product:
    """A kind of instruction that a core begins equally often.

    Attributes:
        name: as an assembler writes it, with the vector.
        written: the assembly of such instructions.
        sample: one that writes the register ``{0}``, whose factors are none of the registers 0 to 11.
        multiplications: of one of them.
    """

    name: str
    written: re.Pattern[str]
    sample: str
    multiplications: int


def _arm(name: str, written: str, registers: str, multiplications: int) -> Product:
    mnemonic, _, arrangement = name.partition(".")
    sample = f"{mnemonic} v{{0}}.{arrangement}, {registers}"
    return Product(name, re.compile(rf"^{written} v\d+\.{arrangement}, "), sample, multiplications)


def _x86(name: str, written: str, multiplications: int) -> Product:
    mnemonic, vector = name.split()
    sample = f"{mnemonic} %{vector}14, %{vector}15, %{vector}{{0}}"
    # The result stands last; of masked instructions, before the mask.
    return Product(name, re.compile(rf"^(\{{vex\}} )?{written} .*%{vector}\d+( \{{.*)?$"), sample, multiplications)


def _microcontroller(sample: str, written: str, multiplications: int) -> Product:
    return Product(sample.partition(" ")[0], re.compile(rf"^{written} "), sample, multiplications)


_BITS = {"xmm": 128, "ymm": 256, "zmm": 512}

PRODUCTS: dict[str, tuple[Product, ...]] = {
    "aarch64": (
        _arm("fmla.4s", "fml[as]", "v16.4s, v17.4s", 4),
        _arm("fmla.8h", "fml[as]", "v16.8h, v17.8h", 8),
        _arm("fmlal.4s", "fml[as]l2?", "v16.4h, v17.4h", 4),
        _arm("sdot.4s", "[su]dot", "v16.16b, v17.16b", 16),
        _arm("smmla.4s", "(us|[su])mmla", "v16.16b, v17.16b", 32),
        _arm("smlal.8h", "[su]ml[as]l2?", "v16.8b, v17.8b", 8),
        _arm("smull.8h", "[su]mull2?", "v16.8b, v17.8b", 8),
        _arm("smlal.4s", "[su]ml[as]l2?", "v16.4h, v17.4h", 4),
        _arm("smull.4s", "[su]mull2?", "v16.4h, v17.4h", 4),
    ),
    # Without vectors: one multiply-add of float32, two or one of codes.
    "arm": (
        _microcontroller("vfma.f32 s{0}, s16, s17", r"v(fn?m|n?ml)[as]\.f32(?= s)", 1),
        _microcontroller("smlad r{0}, r12, lr, r{0}", "sml[as]dx?", 2),
        _microcontroller("smuad r{0}, r12, lr", "smu[as]dx?", 2),
        _microcontroller("smlabb r{0}, r12, lr, r{0}", "smla[bt][bt]", 1),
        _microcontroller("mla r{0}, r12, lr, r{0}", "ml[as]", 1),
    ),
    "x86_64": tuple(
        kind
        for vector, bits in _BITS.items()
        for kind in (
            _x86(f"vfmadd231ps {vector}", r"vfn?m(add|sub)\d+ps", bits // 32),
            _x86(f"vfmadd231ph {vector}", r"vfn?m(add|sub)\d+ph", bits // 16),
            _x86(f"vpdpbusd {vector}", r"vpdp\w+", bits // 8),
        )
    ),
}
"""By architecture, the one of whole float32 vectors first for each width of vectors."""


def product_of(line: str, architecture: str) -> Product | None:
    """The kind of one instruction; None for one that is no multiplication of whole vectors, or of float64."""
    return next((kind for kind in PRODUCTS.get(architecture, ()) if kind.written.match(line)), None)
