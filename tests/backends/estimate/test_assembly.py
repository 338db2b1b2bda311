"""Code for llvm-mca: addresses that move, branches, and what LLVM does not know."""

from __future__ import annotations

import subprocess

import pytest

from reconvene.backends.estimate.assembly import disassemble, modelled
from reconvene.backends.estimate.core_model import block_cycles, find_core
from reconvene.backends.estimate.tools import llvm_tool
from reconvene.backends.estimate.writeback import split_writeback
from tests.support.tools import needs

SPLITS = [
    ("ldr q0, [x1], #16", ["ldr q0, [x1]", "add x1, x1, #16"]),
    ("ldr q0, [x1], #-16", ["ldr q0, [x1]", "sub x1, x1, #16"]),
    ("ldp q0, q1, [x2], #32", ["ldp q0, q1, [x2]", "add x2, x2, #32"]),
    ("stp x29, x30, [sp, #-80]!", ["sub sp, sp, #80", "stp x29, x30, [sp]"]),
    ("ldrb w3, [x4, #1]!", ["add x4, x4, #1", "ldrb w3, [x4]"]),
    ("ld1 { v0.4s, v1.4s }, [x0], #32", ["ld1 { v0.4s, v1.4s }, [x0]", "add x0, x0, #32"]),
    ("ld1 { v0.4s }, [x0], x7", ["ld1 { v0.4s }, [x0]", "add x0, x0, x7"]),
    ("ld1r { v29.4s }, [x24], #4", ["ld1r { v29.4s }, [x24]", "add x24, x24, #4"]),
    ("st1 { v0.s }[1], [x9], #4", ["st1 { v0.s }[1], [x9]", "add x9, x9, #4"]),
    ("str q0, [x1, #16]", ["str q0, [x1, #16]"]),
    ("ldr s0, [x1, x2, lsl #2]", ["ldr s0, [x1, x2, lsl #2]"]),
    ("ldr x0, [x1]", ["ldr x0, [x1]"]),
    ("fmla v0.4s, v1.4s, v2.s[0]", ["fmla v0.4s, v1.4s, v2.s[0]"]),
]


@pytest.mark.parametrize(("line", "parts"), SPLITS)
def test_split(line: str, parts: list[str]) -> None:
    assert split_writeback(line) == parts


@needs("llvm-mca")
def test_parts_are_assembly() -> None:
    text = "\n".join(part for line, parts in SPLITS for part in (line, *parts))
    command = [llvm_tool("llvm-mc"), "-triple=aarch64", "--filetype=null"]
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize(
    ("architecture", "line", "wanted"),
    [
        ("aarch64", "b.ne #-36", "b.ne #4"),
        ("aarch64", "b #1024", "b #4"),
        ("aarch64", "cbz x0, #-8", "cbz x0, #4"),
        ("aarch64", "tbnz w1, #3, #40", "tbnz w1, #3, #4"),
        ("aarch64", "bl #-5000", "b #4"),
        ("aarch64", "blr x8", "br x8"),
        ("aarch64", "bic x0, x1, #8", "bic x0, x1, #8"),
        ("x86_64", "jne -16", "jne 4"),
        ("x86_64", "callq -20", "jmp 4"),
        ("x86_64", "callq *8(%rax)", "jmp *8(%rax)"),
        ("x86_64", "vaddps %ymm1, %ymm0, %ymm0", "vaddps %ymm1, %ymm0, %ymm0"),
    ],
)
def test_branches_are_literal(architecture: str, line: str, wanted: str) -> None:
    assert modelled([line], architecture) == [wanted]


@needs("llvm-mca")
def test_disassembly_leaves_out_the_unknown() -> None:
    fmla, add, unknown = bytes.fromhex("20cc224e"), bytes.fromhex("20000291"), bytes.fromhex("ffffffff")
    found = disassemble([add, unknown, fmla, add], "aarch64")
    assert found == {fmla: "fmla v0.4s, v1.4s, v2.4s", add: "add x0, x1, #128"}
    assert disassemble([b"\x75\xf0", b"\x90", b"\xc5\xfc\x58\xc1"], "x86_64") == {
        b"\x75\xf0": "jne -16",
        b"\x90": "nop",
        b"\xc5\xfc\x58\xc1": "vaddps %ymm1, %ymm0, %ymm0",
    }


@needs("llvm-mca")
def test_why_addresses_are_split() -> None:
    """A copying loop: by LLVM's model the next address waits for the data stored, on no core does it."""
    block = ["ldr s0, [x0], #4", "str s0, [x1], #4"]
    core = find_core("aarch64", "cortex-a72")
    raw, split = block_cycles(core, [block, modelled(block, "aarch64")])
    assert split.steady < raw.steady
