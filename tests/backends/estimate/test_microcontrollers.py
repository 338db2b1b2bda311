"""Estimates for Cortex-M: counts of a program written by hand, the code that llvm-mca is given, and whole bundles."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from reconvene.backends.compile import compile
from reconvene.backends.estimate.assembly import disassemble, modelled
from reconvene.backends.estimate.blocks import blocks_of
from reconvene.backends.estimate.bundle import OTHER, estimate_bundle
from reconvene.backends.estimate.core_model import block_cycles, find_core
from reconvene.backends.estimate.counting import Command, count_instructions
from reconvene.backends.estimate.symbols import symbols_by_address
from reconvene.driver.cli.command_line import main
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

board = needs("qemu-system-arm", "arm-none-eabi-g++", "llvm-mca")
model = needs("llvm-mca")

QEMU = ("qemu-system-arm", "-M", "mps2-an386", "-cpu", "cortex-m4", "-nographic", "-monitor", "none", "-serial", "none")
QEMU += ("-semihosting-config", "enable=on,target=native", "-kernel")

# A loop with a condition (IT), a literal pool amid the code, and instructions of two sizes up to the end of a page, where
# QEMU looks at the first half of the next.
LOOPS = """
    .syntax unified
    .thumb
    .section .vectors, "a"
    .word 0x20001000
    .word start + 1
    .text
    .globl start, loop, leave
    .thumb_func
    .type start, %function
start:
    ldr r1, =100000
    movs r4, #7
    b loop
    .ltorg
    .thumb_func
    .type loop, %function
loop:
    subs r4, r4, #1
    it eq
    addeq.w r1, r1, r4
    bne loop
    b last
    .balign 1024
    .space 1018
last:
    add.w r2, r1, r4
    add.w r3, r1, r4
    b leave
    .thumb_func
    .type leave, %function
leave:
    movs r0, #0x18
    ldr r1, =0x20026
    bkpt 0xab
    .ltorg
"""


@board
def test_every_instruction(tmp_path: Path) -> None:
    (tmp_path / "loops.s").write_text(LOOPS)
    path = tmp_path / "loops"
    flags = ["-mcpu=cortex-m4", "-nostdlib", "-Wl,--section-start=.vectors=0,-Ttext=0x400,-e,start"]
    subprocess.run(["arm-none-eabi-g++", *flags, "-o", str(path), str(tmp_path / "loops.s")], check=True)
    ran = count_instructions(Command(QEMU, (str(path),)))
    names = symbols_by_address(path)
    found = [(names.at(b.offset), b.count, [len(code) for code in b.code]) for b in blocks_of(ran)]
    assert found == [
        ("start", 1, [2, 2, 4]),
        ("loop", 7, [2, 2, 4, 4]),
        ("loop", 1, [2]),
        ("loop", 1, [4, 4, 4, 2, 2, 2]),
    ]


@model
def test_conditions_do_not_spread() -> None:
    """Code behind an IT is disassembled without it, since what is next in a list is not what is next in the program."""
    it, add, wide = bytes.fromhex("08bf"), bytes.fromhex("401c"), bytes.fromhex("21fb0310")
    assert disassemble([wide, add, it, add], "arm") == {
        it: "it",
        add: "adds r0, r0, #1",
        wide: "smlad r0, r1, r3, r1",
    }


@pytest.mark.parametrize(
    ("line", "m4", "m7"),
    [
        ("it", ["nop"], ["nop"]),
        ("smlad r0, r1, r2, r0", ["smlad r0, r1, r2, r0"], ["smlad r0, r1, r2, r0"]),
        ("ldr r0, [r1], #4", ["ldr r0, [r1], #4"], ["ldr r0, [r1]", "add r1, r1, #4"]),
        ("ldrd r0, r1, [r2]", ["ldrd r0, r1, [r2]", "nop"], ["ldrd r0, r1, [r2]", "nop"]),
        ("vldr d0, [r2]", ["vldr d0, [r2]", "nop"], ["vldr d0, [r2]", "nop"]),
        ("vldr s0, [r2]", ["vldr s0, [r2]"], ["vldr s0, [r2]"]),
        ("push {r4, r5, lr}", ["push {r4, r5, lr}", "nop", "nop"], ["push {r4, r5, lr}", "nop", "nop"]),
        ("vldmia r0!, {d0, d1}", ["vldmia r0!, {d0, d1}", *["nop"] * 3], ["vldmia r0!, {d0, d1}", *["nop"] * 3]),
        ("bne.w #-364", ["bne.w #4", "nop"], ["bne.w #4"]),
        ("b #-4", ["b #4", "nop"], ["b #4"]),
        ("cbnz r3, #8", ["cbnz r3, #4", "nop"], ["cbnz r3, #4"]),
        ("bl #-5000", ["b #4", "nop"], ["b #4"]),
        ("blx r3", ["bx r3", "nop"], ["bx r3"]),
        ("bx lr", ["bx lr", "nop"], ["bx lr"]),
        ("bic r0, r1, #8", ["bic r0, r1, #8"], ["bic r0, r1, #8"]),
        ("bfi r0, r1, #8, #4", ["bfi r0, r1, #8, #4"], ["bfi r0, r1, #8, #4"]),
        ("pop {r4, r5, pc}", ["pop {r4, r5}", "nop", "b #4", "nop"], ["pop {r4, r5}", "nop", "b #4"]),
    ],
)
def test_what_llvm_is_given(line: str, m4: list[str], m7: list[str]) -> None:
    assert modelled([line], "arm", "Cortex-M4") == m4
    assert modelled([line], "arm", "Cortex-M7") == m7


@model
@pytest.mark.parametrize(("cpu", "name"), [("cortex-m4", "Cortex-M4"), ("cortex-m7", "Cortex-M7")])
def test_cycles_known_by_hand(cpu: str, name: str) -> None:
    core = find_core("arm", cpu)
    assert (core.model, core.exact, core.multiply_adds, dict(core.rates)["smlad"]) == (name, True, 1, 1)
    loop = ["ldr r0, [r4, #4]", "ldr r1, [r5, #4]", "add r6, r6, #1", "smlad r2, r0, r1, r2", "bne #-20"]
    # Five and the branch that refills the pipeline; two at once at the best.
    (found,) = block_cycles(core, [modelled(loop, "arm", name)])
    assert found.steady == 6 if cpu == "cortex-m4" else 2.5 <= found.steady <= 5
    assert found.throughput <= found.steady


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    return nn.Sequential(*layers).eval()


X = (torch.zeros(1, 3, 8, 8),)


@board
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m7"])
def test_every_kernel(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = compile(network(), X, target).export(tmp_path / "bundle")
    estimate = estimate_bundle(bundle)
    costs = {kernel.name: kernel for kernel in estimate.kernels}
    assert {"convolution_0", "pool_0", "convolution_1"} <= set(costs)
    # Some of addresses are among them, and the last tile of a row, moved back, computes pixels again.
    # For the M4, whose fused ones take three cycles, LLVM multiplies and then adds.
    fused = target == "cortex-m7"
    for name, products in (("convolution_0", 3 * 4 * 9 * 64), ("convolution_1", 64 * 5)):
        assert fused * products <= costs[name].multiply_adds <= fused * 1.13 * products + 32
    assert costs["pool_0"].multiply_adds == 0
    assert all(cost.cycles >= cost.throughput_cycles > 0 for cost in costs.values())
    # Between the kernels there is little, and nothing of loading the program.
    assert estimate.other.name == OTHER and estimate.other.instructions < 5000
    assert (estimate.caches, estimate.total.l1_misses, estimate.total.memory_bytes) == ((), 0, 0)
    assert estimate.total.milliseconds == pytest.approx(estimate.total.cycles / (1e3 * (estimate.board.clock_mhz or 0)))
    assert "no wait states of flash" in estimate.limits[1]
    assert estimate_bundle(bundle).kernels == estimate.kernels
    assert main(["estimate", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["core"]["cpu"] == target


def test_without_a_program(tmp_path: Path) -> None:
    bundle = compile(network(), X, "cortex-m7").export(tmp_path / "bundle", link=False)
    with pytest.raises(InputError, match="holds no program; a compiler for it makes one"):
        estimate_bundle(bundle)
