"""Machine code as text that llvm-mca can judge."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from ..machines.architectures import ARCHITECTURES
from .tools import llvm_tool

__all__ = ["disassemble", "modelled"]

_UNKNOWN = re.compile(r"^<stdin>:(\d+):\d+: warning:", re.MULTILINE)

# Post-indexed: a register or a literal behind the bracket. Pre-indexed: an exclamation mark.
_POST = re.compile(r"^((?:ld|st)\S* .*\[(\w+))\], (#-?\d+|x\d+)$")
_PRE = re.compile(r"^((?:ld|st)\S* .*\[(\w+)), #(-?\d+)\]!$")

_ARM_BRANCH = re.compile(r"^(b|b\.\w+|cbz|cbnz|tbz|tbnz)( .*)?#-?\d+$")
_X86_CALL = re.compile(r"^call\w? ")
_X86_BRANCH = re.compile(r"^(j\w+) -?(0x)?[0-9a-f]+$")


def disassemble(codes: Iterable[bytes], architecture: str) -> dict[bytes, str]:
    """The text of every instruction in `codes`, its fields separated by one blank. What LLVM does not know is left out."""
    wanted = sorted(set(codes))
    given = "".join(f"[{' '.join(f'0x{byte:02x}' for byte in code)}]\n" for code in wanted)
    command = [llvm_tool("llvm-mc"), "--disassemble", f"-triple={architecture}-linux-gnu"]
    if ARCHITECTURES[architecture].model_attributes:
        command.append(f"-mattr={ARCHITECTURES[architecture].model_attributes}")
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    unknown = {int(line) - 1 for line in _UNKNOWN.findall(result.stderr)}
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    texts = [line for line in lines if line and not line.startswith(".")]
    known = [code for index, code in enumerate(wanted) if index not in unknown]
    return dict(zip(known, texts, strict=True))


def modelled(assembly: Sequence[str], architecture: str) -> list[str]:
    """`assembly` as llvm-mca should see it.

    Loads and stores that also move their address register are split in two: llvm-mca lets the new address wait for
    the loaded value (before LLVM 17) or the stored one (all versions), which no core does. Targets of branches are
    made literal, and calls become jumps, since a call's latency is counted where its instructions are.
    """
    if architecture == "x86_64":
        return [_x86(line) for line in assembly]
    return [_arm_branch(line) for whole in assembly for line in split_writeback(whole)]


def split_writeback(line: str) -> list[str]:
    """A load or store and the addition that moves its address register; `line` alone if it moves none."""
    found = _POST.match(line)
    if found:
        access, register, step = found.groups()
        return [f"{access}]", _moved(register, step)]
    found = _PRE.match(line)
    if found:
        access, register, step = found.groups()
        return [_moved(register, f"#{step}"), f"{access}]"]
    return [line]


def _moved(register: str, step: str) -> str:
    name, amount = ("sub", step.replace("#-", "#")) if step.startswith("#-") else ("add", step)
    return f"{name} {register}, {register}, {amount}"


def _arm_branch(line: str) -> str:
    line = re.sub(r"^bl #", "b #", line)
    line = re.sub(r"^blr x", "br x", line)
    found = _ARM_BRANCH.match(line)
    return f"{found.group(1)}{found.group(2) or ' '}#4" if found else line


def _x86(line: str) -> str:
    jump = _X86_CALL.sub("jmp ", line)
    found = _X86_BRANCH.match(jump)
    return f"{found.group(1)} 4" if found else jump
