"""Counts of programs written by hand, to the last instruction and the last cache line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconvene.backends.estimate.blocks import Block, blocks_of, steady
from reconvene.backends.estimate.counting import CacheLevel, Command, Ran, count_instructions, count_misses, new_misses
from reconvene.backends.estimate.symbols import kernel_name, symbols_of
from reconvene.frontend.base.errors import InputError
from tests.support.tools import needs

board = needs("aarch64-linux-gnu-g++", "qemu-aarch64")

LOOPS = """
    .globl _start, outer, inner, leave
    .type _start, %function
    .type outer, %function
    .type inner, %function
    .type leave, %function
_start:
    mov x0, #0
    mov x1, #7
outer:
    mov x2, #100
inner:
    add x0, x0, #1
    sub x2, x2, #1
    cbnz x2, inner
    sub x1, x1, #1
    cbnz x1, outer
leave:
    mov x0, #CODE
    mov x8, #93
    svc #0
"""

# Reads every line of an array, PASSES times. It touches no other memory.
LINES = """
    .globl _start
_start:
    mov x4, #PASSES
again:
    ldr x0, =array
    mov x1, #LINES
next:
    ldr w2, [x0], #64
    sub x1, x1, #1
    cbnz x1, next
    sub x4, x4, #1
    cbnz x4, again
    mov x0, #0
    mov x8, #93
    svc #0
    .ltorg
    .bss
    .balign 65536
array:
    .zero 262144
"""


def program(folder: Path, source: str, **values: int) -> Command:
    for name, value in values.items():
        source = source.replace(name, str(value))
    text, path = folder / "program.s", folder / f"program-{len(list(folder.iterdir()))}"
    text.write_text(source)
    call = ["aarch64-linux-gnu-g++", "-nostdlib", "-static", "-o", str(path), str(text)]
    subprocess.run(call, check=True)
    return Command(("qemu-aarch64", "-cpu", "cortex-a72"), (str(path),))


@board
def test_every_instruction(tmp_path: Path) -> None:
    command = program(tmp_path, LOOPS, CODE=0)
    ran = count_instructions(command)
    assert list(dict(sorted(ran.counts.items())).values()) == [1, 1, 7, 700, 700, 700, 7, 7, 1, 1, 1]
    assert sum(ran.counts.values()) == 5 + 3 * 7 + 3 * 700
    assert {Path(file).name for file, _ in ran.counts} == {Path(command.program[0]).name}
    assert count_instructions(command) == ran


@board
def test_blocks_and_their_names(tmp_path: Path) -> None:
    command = program(tmp_path, LOOPS, CODE=0)
    symbols = symbols_of(Path(command.program[0]))
    found = [
        (symbols.at(b.offset), b.count, len(b.code), b.instructions) for b in blocks_of(count_instructions(command))
    ]
    assert found == [
        ("_start", 1, 2, 2),
        ("outer", 7, 1, 7),
        ("inner", 700, 3, 2100),
        ("inner", 7, 2, 14),
        ("leave", 1, 3, 3),
    ]
    assert symbols.at(0) is None


def test_kernels_by_name() -> None:
    assert kernel_name("__tvm_ffi_convolution_3") == kernel_name("convolution_3_compute_") == "convolution_3"


def test_what_is_no_program_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    assert symbols_of(tmp_path / "text").names == symbols_of(tmp_path / "missing").names == ()


def test_steady_is_the_difference() -> None:
    code = {("a", n): b"\0\0\0\0" for n in (0, 4, 8)}
    more, fewer = Ran({("a", 0): 5, ("a", 4): 5, ("a", 8): 1}, code), Ran({("a", 0): 3, ("a", 4): 2, ("a", 8): 1}, code)
    found = steady(more, fewer)
    assert found.counts == {("a", 0): 2, ("a", 4): 3}
    assert blocks_of(found) == [Block("a", 0, 2, (b"\0\0\0\0",)), Block("a", 4, 3, (b"\0\0\0\0",))]


@board
@pytest.mark.parametrize(
    ("lines", "passes", "first", "last"),
    [
        (256, 2, 256, 256),  # 16 KiB stay in the first level
        (1024, 2, 2048, 1024),  # 64 KiB do not, and with the oldest line replaced nothing of them is ever found
        (4096, 3, 3 * 4096, 3 * 4096),  # 256 KiB do not fit into 128 either
    ],
)
def test_every_miss(tmp_path: Path, lines: int, passes: int, first: int, last: int) -> None:
    command = program(tmp_path, LINES, LINES=lines, PASSES=passes)
    levels = (CacheLevel(32768, 2), CacheLevel(131072, 16))
    misses = count_misses(command, levels)
    load = max(misses.values())
    literal = len(misses) - 1  # the load of the array's address misses once, unless it shares a line
    assert load == (first, last)
    assert literal in (0, 1)
    assert count_misses(command, levels) == misses


@board
def test_sets_that_are_no_power_of_two(tmp_path: Path) -> None:
    command = program(tmp_path, LINES, LINES=192, PASSES=2)
    assert max(count_misses(command, [CacheLevel(24576, 2)]).values()) == (192,)  # one line in each of 192 sets
    assert max(count_misses(command, [CacheLevel(6144, 2)]).values()) == (384,)


def test_new_misses() -> None:
    assert new_misses({("a", 0): (5, 2), ("a", 4): (1, 0)}, {("a", 0): (3, 2)}) == {("a", 0): (2, 0), ("a", 4): (1, 0)}


@board
def test_a_program_that_fails(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'program-\d' ended with 3 under qemu-aarch64: no message"):
        count_instructions(program(tmp_path, LOOPS, CODE=3))
    with pytest.raises(InputError, match=r"'program-\d' was ended by signal 4 under qemu-aarch64"):
        count_instructions(program(tmp_path, ".globl _start\n_start:\n.word 0\n"))


def test_qemu_without_plugins(tmp_path: Path) -> None:
    """What QEMU says that was built without them."""
    emulator = tmp_path / "qemu"
    emulator.write_text("#!/bin/sh\necho \"qemu: unknown option 'plugin'\" >&2\nexit 1\n")
    emulator.chmod(0o755)
    with pytest.raises(InputError, match=r"has no plugins; install a QEMU that has .*apt-get install qemu-user"):
        count_instructions(Command((str(emulator),), ("program",)))
