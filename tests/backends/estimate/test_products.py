"""Which instructions multiply and add whole vectors, and what a core takes for them at least."""

from __future__ import annotations

import subprocess
from collections import Counter

import pytest

from reconvene.backends.estimate.assembly import disassemble
from reconvene.backends.estimate.blocks import Block
from reconvene.backends.estimate.board import BoardModel
from reconvene.backends.estimate.core_model import block_cycles, find_core
from reconvene.backends.estimate.cost import costs_of
from reconvene.backends.estimate.products import PRODUCTS, product_of
from reconvene.backends.estimate.tools import llvm_tool
from reconvene.backends.machines.architectures import ARCHITECTURES
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs


@pytest.mark.parametrize(
    ("architecture", "line", "kind", "multiplications"),
    [
        ("aarch64", "fmla v0.4s, v1.4s, v2.s[0]", "fmla.4s", 4),
        ("aarch64", "fmls v0.8h, v1.8h, v2.h[7]", "fmla.8h", 8),
        ("aarch64", "fmlal2 v0.4s, v1.4h, v2.h[0]", "fmlal.4s", 4),
        ("aarch64", "sdot v0.4s, v1.16b, v2.4b[3]", "sdot.4s", 16),
        ("aarch64", "usmmla v0.4s, v1.16b, v2.16b", "smmla.4s", 32),
        ("aarch64", "smlal2 v0.8h, v1.16b, v2.16b", "smlal.8h", 8),
        ("aarch64", "umull v0.4s, v1.4h, v2.h[1]", "smull.4s", 4),
        ("aarch64", "smlal v0.4s, v1.4h, v2.h[1]", "smlal.4s", 4),
        ("arm", "vfma.f32 s0, s1, s2", "vfma.f32", 1),
        ("arm", "vmls.f32 s0, s1, s2", "vfma.f32", 1),
        ("arm", "smladx r0, r1, r2, r0", "smlad", 2),
        ("arm", "smuad r0, r1, r2", "smuad", 2),
        ("arm", "smlabt r0, r1, r2, r0", "smlabb", 1),
        ("arm", "mls r0, r1, r2, r0", "mla", 1),
        ("x86_64", "vfmadd231ps %ymm14, %ymm15, %ymm0", "vfmadd231ps ymm", 8),
        ("x86_64", "vfnmadd213ps 64(%rax){1to16}, %zmm15, %zmm30", "vfmadd231ps zmm", 16),
        ("x86_64", "vfmadd231ph %xmm14, %xmm15, %xmm0 {%k1} {z}", "vfmadd231ph xmm", 8),
        ("x86_64", "{vex} vpdpbusd %ymm14, %ymm15, %ymm0", "vpdpbusd ymm", 32),
        ("x86_64", "vpdpbusd %zmm1, %zmm2, %zmm3", "vpdpbusd zmm", 64),
    ],
)
def test_products(architecture: str, line: str, kind: str, multiplications: int) -> None:
    found = product_of(line, architecture)
    assert found is not None
    assert (found.name, found.multiplications) == (kind, multiplications)


@pytest.mark.parametrize(
    ("architecture", "line"),
    [
        ("aarch64", "fmla v0.2d, v1.2d, v2.2d"),
        ("aarch64", "fmla v0.2s, v1.2s, v2.2s"),
        ("aarch64", "fmadd s0, s1, s2, s3"),
        ("aarch64", "fmul v0.4s, v1.4s, v2.4s"),
        ("x86_64", "vmulps %ymm1, %ymm0, %ymm0"),
        ("x86_64", "vfmadd231ss %xmm1, %xmm0, %xmm0"),
        ("arm", "vfma.f32 q0, q1, q2"),
        ("arm", "vfma.f64 d0, d1, d2"),
        ("arm", "mul r0, r1, r2"),
        ("arm", "smlal r0, r1, r2, r3"),
    ],
)
def test_no_products(architecture: str, line: str) -> None:
    assert product_of(line, architecture) is None


@pytest.mark.parametrize("architecture", PRODUCTS)
def test_samples_are_of_their_kind(architecture: str) -> None:
    for kind in PRODUCTS[architecture]:
        assert product_of(kind.sample.format(0), architecture) is kind


@needs("llvm-mca")
@pytest.mark.parametrize("architecture", PRODUCTS)
def test_samples_are_assembly(architecture: str) -> None:
    extensions = {"aarch64": "+v8.6a,+fullfp16,+fp16fml", "x86_64": "+avx512vl,+avx512vnni,+avx512fp16"}
    isa = ARCHITECTURES[architecture]
    attributes = extensions.get(architecture, isa.model_attributes)
    text = "\n".join(kind.sample.format(11) for kind in PRODUCTS[architecture])
    command = [llvm_tool("llvm-mc"), f"-triple={isa.model_triple}", f"-mattr={attributes}", "--filetype=null"]
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=False).stderr == ""


@needs("llvm-mca")
def test_rates_are_the_models_own() -> None:
    core = find_core("aarch64", "cortex-a72")
    rates = dict(core.rates)
    assert rates["fmla.4s"] == core.multiply_adds == 1
    for name in ("smlal.8h", "smull.4s"):
        (kind,) = (kind for kind in PRODUCTS["aarch64"] if kind.name == name)
        (cycles,) = block_cycles(core, [[kind.sample.format(register) for register in range(8)]])
        assert cycles.throughput == 8 / rates[name]


@needs("llvm-mca")
def test_floors_add_up() -> None:
    core = find_core("aarch64", "cortex-a53")
    kinds = {kind.name: kind for kind in PRODUCTS["aarch64"]}
    rates = dict(core.rates)
    counts = Counter({kinds["fmla.4s"]: 30, kinds["smlal.8h"]: 20})
    assert core.least_cycles(counts) == 30 / rates["fmla.4s"] + 20 / rates["smlal.8h"]
    # A kind that a model has nothing on takes nothing.
    unknown = next((kind for kind in kinds.values() if kind.name not in rates), None)
    assert unknown is None or core.least_cycles({unknown: 10}) == 0


FMLA, FMLA_HALF, SDOT = "20cc224e", "200c424e", "2094824e"
UNKNOWN = "ffffffff"


@needs("llvm-mca")
def test_half_floats_are_disassembled() -> None:
    codes = [bytes.fromhex(code) for code in (FMLA, FMLA_HALF, SDOT)]
    texts = disassemble(codes, "aarch64")
    assert [texts[code] for code in codes] == [
        "fmla v0.4s, v1.4s, v2.4s",
        "fmla v0.8h, v1.8h, v2.8h",
        "sdot v0.4s, v1.16b, v2.16b",
    ]


@needs("llvm-mca")
@pytest.mark.parametrize("place", [0, 1])
def test_a_kernel_with_an_unknown_instruction_is_refused(place: int) -> None:
    """In the code of a kernel, not in that of libraries."""
    core, board = find_core("aarch64", "cortex-a53"), BoardModel(1000, 4000)
    known = Block("a", 0, 100, (bytes.fromhex(FMLA),) * 4)
    strange = Block("b", 0, 100, (bytes.fromhex(FMLA), bytes.fromhex(UNKNOWN)))
    owners = {"a": "kernel", "b": "kernel_1"} if place else {"a": "kernel", "b": "(runtime)"}

    def cost() -> dict[str, object]:
        return dict(costs_of([known, strange], {}, lambda file, _: owners[file], core, board, "(runtime)"))

    if place:
        with pytest.raises(
            InputError, match=r"does not know the instruction ffffffff of 'kernel_1'; install a newer LLVM"
        ):
            cost()
    else:
        assert cost().keys() == {"kernel", "(runtime)"}
