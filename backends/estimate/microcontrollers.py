"""Code of microcontrollers (Cortex-M: Thumb, 16 and 32 bits wide) as llvm-mca should see it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .writeback import split_writeback

__all__ = ["SINGLE", "conditions", "modelled"]

SINGLE = "Cortex-M4"
"""The core, of those with models, that starts one instruction in a cycle and foresees no branch."""

_IT = "it"
_NOTHING = "nop"

_BRANCH = re.compile(r"^(b(?!l |x |lx |ic|fc|fi|kpt)\w*(?:\.w)?|cbn?z)( .*)?#-?\d+$")
_CALL = re.compile(r"^bl(x?) ")
_JUMP = re.compile(r"^(b(?!ic|fc|fi|kpt)|cbn?z|tb[bh] |(pop|ldm).*\bpc\b|ldr\S* pc, )")
_PAIR = re.compile(r"^(?:(?:ld|st)rd|v(?:ld|st)r\S*(?= d)) ")
_LIST = re.compile(r"^(?:v?(?:ld|st)m\S*|v?push\S*|v?pop\S*) .*\{(.*)\}$")


def conditions(codes: Iterable[bytes]) -> tuple[dict[bytes, str], list[bytes]]:
    """The instructions that make others conditional (IT), and all the rest, to be disassembled one by one.

    A disassembler would make whatever stands next conditional, which is not what stood next in the program. Of the code
    behind an IT so the condition is lost, and short forms seem to set flags; neither changes what they cost.
    """
    different = set(codes)
    makers = {code for code in different if len(code) == 2 and code[1] == 0xBF and code[0] & 0x0F}
    return dict.fromkeys(makers, _IT), list(different - makers)


def modelled(assembly: Sequence[str], *, single: bool) -> list[str]:
    """`assembly` with what LLVM's models have too cheap or too dear as the cores have it.

    An access to several registers takes as many words as it has: LLVM's models count one. On a core that starts two
    instructions in a cycle, which reads 64 bits, an address that moves is an addition of its own, as on larger cores; the
    other has it for nothing. IT takes the place of an instruction. Targets of branches are made literal, calls become
    jumps, and where no branch is foreseen the end of a block that is one refills the pipeline: a cycle at the least.

    Source: Arm, Cortex-M4 technical reference manual r0p1 (100166), 3.3.1; Cortex-M7 (DDI 0489), 2.1 and 5.
    """
    found = [part for line in assembly for part in _parts(line, single)]
    if single and assembly and _JUMP.match(assembly[-1]):
        found.append(_NOTHING)
    return found


def _parts(line: str, single: bool) -> list[str]:
    if line == _IT:
        return [_NOTHING]
    more = [_NOTHING] * (_words(line) - 1)
    if _leaves(line):
        # A return reads the address to go to from the stack; llvm-mca would take it for a call.
        return [line.replace(", pc}", "}").replace("{pc}", "{lr}"), *more[1:], "b #4"]
    return [*([_branch(line)] if single else map(_branch, split_writeback(line))), *more]


def _leaves(line: str) -> bool:
    return line.startswith(("pop", "ldm")) and re.search(r"\bpc\b", line) is not None


def _words(line: str) -> int:
    """Of memory that an instruction reads or writes; 1 for one that does neither."""
    if _PAIR.match(line):
        return 2
    found = _LIST.match(line)
    if found is None:
        return 1
    registers = found[1].split(", ")
    return len(registers) * (2 if registers[0].startswith("d") else 1)


def _branch(line: str) -> str:
    found = _BRANCH.match(line)
    if found:
        return f"{found[1]}{found[2] or ' '}#4"
    return _CALL.sub(lambda call: "bx " if call[1] else "b ", line) if not line.startswith("bl #") else "b #4"
