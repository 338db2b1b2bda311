"""The inner loops of x86 kernels keep their sums in registers, of which AVX2 has 16."""

from __future__ import annotations

import re
from typing import Any

import pytest
import tvm

from reconvene.backends.choosing.layer_times import LayerShape, specification
from reconvene.backends.kernels.plane_depthwise import PlaneDepthwiseFamily
from reconvene.backends.kernels.tiles import Machine
from reconvene.backends.machines.architectures import architecture_of
from tests.support.planes import PlanesLayer

ARCHITECTURE = architecture_of("x86_64-linux-gnu")
MACHINE = Machine(32, 16, 2**19, rate=2.0)
LAYERS = {
    "3x3": (LayerShape((3, 3), (1, 1), (1, 1), 1, 56, 56), 64, 64),
    "3x3 of one block": (LayerShape((3, 3), (1, 1), (1, 1), 1, 28, 28), 64, 8),
    "3x3 of few pixels": (LayerShape((3, 3), (1, 1), (1, 1), 1, 7, 7), 512, 512),
    "1x1": (LayerShape((1, 1), (1, 1), (1, 1), 1, 14, 14), 96, 576),
    "1x1 of three blocks": (LayerShape((1, 1), (1, 1), (1, 1), 1, 56, 56), 144, 24),
}


def loops_of(function: Any) -> list[list[str]]:
    """The inner loops that have multiply-adds."""
    target = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}
    module = tvm.IRModule({"kernel": function.with_attr("global_symbol", "kernel")})
    built = tvm.compile(module, target=tvm.target.Target(target))
    lines = [line.strip() for line in getattr(built, "mod", built).inspect_source("asm").split("\n")]
    labels = {line[:-1]: number for number, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    jumps = [(re.match(r"j\w+\s+(\.L\w+)$", line), number) for number, line in enumerate(lines)]
    spans = [(labels[jump[1]], end) for jump, end in jumps if jump and labels.get(jump[1], end) < end]
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    found = [lines[start : end + 1] for start, end in inner]
    return [lines for lines in found if sum("vfmadd" in line for line in lines) >= 4]


def spills(lines: list[str]) -> list[str]:
    """Vectors that go to the stack or come from it."""
    return [line for line in lines if re.search(r"%rsp\)", line) and "%ymm" in line]


def test_spills_are_recognised() -> None:
    lines = [
        "vmovups %ymm1, 64(%rsp)",
        "vfmadd213ps (%rsp), %ymm0, %ymm13",
        "vmovups (%rax), %ymm1",
        "addq 8(%rsp), %rax",
    ]
    assert spills(lines) == lines[:2]


@pytest.mark.parametrize("name", list(LAYERS))
def test_direct_kernels_do_not_spill(name: str) -> None:
    assert ARCHITECTURE is not None and 8 in ARCHITECTURE.paired
    loops = loops_of(specification(*LAYERS[name], MACHINE).function("kernel"))
    assert loops and not [line for lines in loops for line in spills(lines)]


def test_depthwise_kernels_in_planes_do_not_spill() -> None:
    task = PlanesLayer(16, 16, (28, 28), groups=16, zeros=0.0).task()
    loops = loops_of(PlaneDepthwiseFamily().candidates(task, MACHINE)[0].function("kernel"))
    assert loops and not [line for lines in loops for line in spills(lines)]
