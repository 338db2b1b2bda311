"""Instruction sets that code is made for: all that differs between them is in one record each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ...frontend.base.json_text import shortened

__all__ = ["ARCHITECTURES", "Architecture", "architecture_of", "llvm_triple", "machine_name", "unsupported"]


@dataclass(frozen=True)
class Architecture:
    """An instruction set, what its code is scheduled by, and what the tools that make, run and model its code call it.

    Attributes:
        name: as LLVM's tools and QEMU's programs are named by it.
        triples: a pattern of the first parts of the triples that mean it.
        machines: what ``uname -m`` calls it beside `name`.
        elf: its machine in the header of an ELF file.
        section_mark: what stands before a section's type in assembly; the usual ``@`` begins a comment on ARM.
        attributes: LLVM's, beyond those of a core, for machines with an operating system.

        vectors: float32 elements of a vector register, and such registers, that every core for systems has.
        wider_vectors: the same for cores with an attribute of LLVM's, the widest first.
        index: the type of indices into lists of places that its code is best with: one as wide as pointers becomes a pointer
            that moves on, a narrower one is part of addresses.
        reserved_registers: vector registers that no tile may fill.
        pixel_registers: that the input of each pixel of a tile takes, as in `kernels.tiles.Machine`.
        by_lane: whether multiply-adds take one lane of a register as a factor.
        keeps_nans: whether the maximum of two vectors is NaN where one of them is.
        stream_bytes: weights that a core reads from memory in a cycle; None where a target's clock and memory say it.
        half_floats: LLVM's attribute of cores that compute with vectors of float16; None where code for them is not made.
        in_order: cores, as LLVM names them, that start instructions in the order of the code.
        halving: cores that carry an instruction on 512 bits out in two halves.
        doubled: cores, as LLVM names them, that start two products of whole vectors in a cycle.
        paired: float32 elements of vectors of which two products start in a cycle, as far as tiles depend on it.
        dots: how products of codes are added (`kernels.tiles.Machine`), by the float32 elements of a vector and LLVM's
            attributes that it takes, the best first.

        compiler_package: Debian's, of the C++ compiler for it.
        library_package: Debian's, of the C++ library for it.
        library_folder: where Debian puts its libraries on other machines, below ``/usr``.
        zig: what ziglang calls it, with the machine's C library and with its own; of the former the version is the oldest
            that the runtime of TVM's own wheel runs on.
        zig_cpu: the least of its cores, as ziglang calls it, since one compiled runtime serves all.
        wheel: the platform of TVM's wheel for it; None where there is none.

        model_triple: LLVM's, as which its code is disassembled and modelled. Of 32-bit ARM it has models of microcontrollers.
        model_attributes: LLVM's, for the same.
    """

    name: str
    triples: re.Pattern[str]
    machines: tuple[str, ...]
    elf: str
    section_mark: str
    attributes: tuple[str, ...]

    vectors: tuple[int, int]
    wider_vectors: tuple[tuple[str, int, int], ...]
    index: str
    reserved_registers: int
    pixel_registers: int
    by_lane: bool
    keeps_nans: bool
    stream_bytes: float | None
    half_floats: str | None
    in_order: frozenset[str]
    halving: frozenset[str]
    doubled: frozenset[str]
    paired: frozenset[int]
    dots: tuple[tuple[str, int, frozenset[str]], ...]

    compiler_package: str
    library_package: str
    library_folder: str
    zig: tuple[str, str]
    zig_cpu: str
    wheel: str | None

    model_triple: str
    model_attributes: str


_ARM_IN_ORDER = frozenset(
    f"cortex-{core}"
    for core in ("a5", "a7", "a34", "a35", "a53", "a55", "a65", "a510", "a520", "m4", "m7", "m33", "m55")
) | {"generic"}
"""Code for any ARM core is made for the least of them."""

_ARM_DOUBLED = frozenset(
    (
        "cortex-a76",
        "cortex-a76ae",
        "cortex-a77",
        "cortex-a78",
        "cortex-a78ae",
        "cortex-a78c",
        "neoverse-n1",
        "neoverse-n2",
    )
)

_X86_64 = Architecture(
    name="x86_64",
    triples=re.compile("x86_64"),
    machines=("amd64",),
    elf="EM_X86_64",
    section_mark="@",
    attributes=(),
    vectors=(4, 16),
    wider_vectors=(("avx512f", 16, 32), ("avx2", 8, 16)),
    index="int32",
    reserved_registers=0,
    pixel_registers=0,
    by_lane=False,
    keeps_nans=False,
    stream_bytes=6.0,
    half_floats="avx512fp16",
    in_order=frozenset(),
    halving=frozenset({"znver4"}),
    doubled=frozenset(),
    paired=frozenset({8}),
    dots=(
        *(("vnni", lanes, frozenset({"avx512vnni", "avx512vl", "avx512bw"})) for lanes in (16, 8, 4)),
        ("vnni", 8, frozenset({"avxvnni"})),
        ("pmaddwd", 16, frozenset({"avx512bw"})),
        ("pmaddwd", 8, frozenset({"avx2"})),
        ("pmaddwd", 4, frozenset({"sse2"})),
    ),
    compiler_package="g++",
    library_package="libstdc++6-amd64-cross",
    library_folder="x86_64-linux-gnu",
    zig=("x86_64-linux-gnu.2.28", "x86_64-linux-musl"),
    zig_cpu="x86_64",
    wheel="manylinux_2_28_x86_64",
    model_triple="x86_64-linux-gnu",
    model_attributes="",
)

_AARCH64 = Architecture(
    name="aarch64",
    triples=re.compile("aarch64|arm64"),
    machines=("arm64",),
    elf="EM_AARCH64",
    section_mark="@",
    attributes=(),
    vectors=(4, 32),
    wider_vectors=(),
    index="int64",
    # LLVM loads inputs ahead into registers of their own: a tile that fills all of them spills.
    reserved_registers=3,
    pixel_registers=1,
    by_lane=True,
    keeps_nans=True,
    stream_bytes=None,
    half_floats="fullfp16",
    in_order=_ARM_IN_ORDER,
    halving=frozenset(),
    doubled=_ARM_DOUBLED,
    paired=frozenset(),
    dots=(("sdot", 4, frozenset({"dotprod"})), ("sadalp", 4, frozenset({"neon"}))),
    compiler_package="g++-aarch64-linux-gnu",
    library_package="libstdc++6-arm64-cross",
    library_folder="aarch64-linux-gnu",
    zig=("aarch64-linux-gnu.2.28", "aarch64-linux-musl"),
    zig_cpu="generic",
    wheel="manylinux_2_28_aarch64",
    model_triple="aarch64-linux-gnu",
    model_attributes="+v8.6a,+fullfp16",
)

_ARM = Architecture(
    name="arm",
    triples=re.compile(r"arm|armv\w+|thumbv\w+", re.ASCII),
    machines=("armv6l", "armv7l", "armv8l"),
    elf="EM_ARM",
    section_mark="%",
    # LLVM's scheduler that counts registers, and fused multiply-adds. LLVM avoids these on some cores, since a sum of them
    # waits for itself; ours are many sums at once.
    attributes=("+use-misched", "-slowfpvfmx", "-vmlx-hazards"),
    vectors=(4, 16),
    wider_vectors=(),
    index="int32",
    # 32-bit instructions for fused multiply-adds take no lane; it has to be spread over a register before, which LLVM does
    # ahead, as it loads inputs.
    reserved_registers=1,
    pixel_registers=3,
    by_lane=True,
    keeps_nans=True,
    stream_bytes=None,
    half_floats=None,
    in_order=_ARM_IN_ORDER,
    halving=frozenset(),
    doubled=frozenset(),
    paired=frozenset(),
    dots=(("vpadal", 4, frozenset({"neon"})), ("smlad", 1, frozenset({"dsp", "vfp2sp"}))),
    compiler_package="g++-arm-linux-gnueabihf",
    library_package="libstdc++6-armhf-cross",
    # Debian has one name for all 32-bit ARM with hard floats.
    library_folder="arm-linux-gnueabihf",
    zig=("arm-linux-gnueabihf.2.28", "arm-linux-musleabihf"),
    zig_cpu="cortex_a7",
    wheel=None,
    model_triple="thumbv7em-none-eabihf",
    model_attributes="+fp-armv8d16",
)

ARCHITECTURES = {entry.name: entry for entry in (_X86_64, _AARCH64, _ARM)}
"""By name."""


@lru_cache(maxsize=64)
def architecture_of(triple: str) -> Architecture | None:
    """The instruction set that `triple` names first; None for one that code is not made for."""
    first = triple.partition("-")[0]
    return next((entry for entry in ARCHITECTURES.values() if entry.triples.fullmatch(first)), None)


def machine_name(machine: str) -> str:
    """The name of the instruction set that ``uname -m`` calls `machine`; `machine` itself where it is none of ours."""
    return next((entry.name for entry in ARCHITECTURES.values() if machine in entry.machines), machine)


def unsupported(triple: object) -> str:
    """Why there is no code for `triple`, for messages."""
    *others, last = ARCHITECTURES
    return (
        f"code is made for {', '.join(others)} and {last}, on Linux, macOS or without a system, not for the triple"
        f" {shortened(triple)}"
    )


def llvm_triple(triple: str) -> str:
    """The triple with all four parts.

    LLVM takes the three that compilers are named by for architecture, vendor and system. It then knows no environment,
    and on 32-bit ARM calls helpers of the C library with arguments in the wrong registers.
    """
    parts = triple.split("-")
    return "-".join([parts[0], "unknown", *parts[1:]]) if len(parts) == 3 else triple
