"""Machine code as text that llvm-mca can judge."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from ..machines.architectures import ARCHITECTURES
from . import microcontrollers
from .tools import llvm_tool
from .writeback import split_writeback

__all__ = ["disassemble", "modelled"]

_UNKNOWN = re.compile(r"^<stdin>:(\d+):\d+: warning:", re.MULTILINE)

_ARM_BRANCH = re.compile(r"^(b|b\.\w+|cbz|cbnz|tbz|tbnz)( .*)?#-?\d+$")
_X86_CALL = re.compile(r"^call\w? ")
_X86_BRANCH = re.compile(r"^(j\w+) -?(0x)?[0-9a-f]+$")


def disassemble(codes: Iterable[bytes], architecture: str) -> dict[bytes, str]:
    """The text of every instruction in `codes`, its fields separated by one blank. What LLVM does not know is left out."""
    if architecture == "arm":
        texts, codes = microcontrollers.conditions(codes)
        return texts | _disassembled(codes, architecture)
    return _disassembled(codes, architecture)


def _disassembled(codes: Iterable[bytes], architecture: str) -> dict[bytes, str]:
    wanted = sorted(set(codes))
    given = "".join(f"[{' '.join(f'0x{byte:02x}' for byte in code)}]\n" for code in wanted)
    command = [llvm_tool("llvm-mc"), "--disassemble", f"-triple={ARCHITECTURES[architecture].model_triple}"]
    if ARCHITECTURES[architecture].model_attributes:
        command.append(f"-mattr={ARCHITECTURES[architecture].model_attributes}")
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    unknown = {int(line) - 1 for line in _UNKNOWN.findall(result.stderr)}
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    texts = [line for line in lines if line and not line.startswith(".")]
    known = [code for index, code in enumerate(wanted) if index not in unknown]
    return dict(zip(known, texts, strict=True))


def modelled(assembly: Sequence[str], architecture: str, model: str = "") -> list[str]:
    """`assembly` as llvm-mca should see it; `model` is the core whose model it takes.

    Loads and stores that also move their address register are split in two: llvm-mca lets the new address wait for
    the loaded value (before LLVM 17) or the stored one (all versions), which no core does. Targets of branches are
    made literal, and calls become jumps, since a call's latency is counted where its instructions are.
    """
    if architecture == "x86_64":
        return [_x86(line) for line in assembly]
    if architecture == "arm":
        return microcontrollers.modelled(assembly, single=model == microcontrollers.SINGLE)
    return [_arm_branch(line) for whole in assembly for line in split_writeback(whole)]


def _arm_branch(line: str) -> str:
    line = re.sub(r"^bl #", "b #", line)
    line = re.sub(r"^blr x", "br x", line)
    found = _ARM_BRANCH.match(line)
    return f"{found.group(1)}{found.group(2) or ' '}#4" if found else line


def _x86(line: str) -> str:
    jump = _X86_CALL.sub("jmp ", line)
    found = _X86_BRANCH.match(jump)
    return f"{found.group(1)} 4" if found else jump
