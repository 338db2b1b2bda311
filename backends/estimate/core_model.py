"""Cycles of basic blocks, by llvm-mca's model of a core."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...frontend.base.errors import InputError
from ..machines.architectures import ARCHITECTURES
from .tools import llvm_tool, llvm_version, output_of

__all__ = ["CORES", "BlockCycles", "Core", "block_cycles", "find_core"]

CORES = {
    "cortex-a53": "Cortex-A53",
    "cortex-a55": "Cortex-A55",
    "cortex-a57": "Cortex-A57",
    "cortex-a72": "Cortex-A57",
    "cortex-a510": "Cortex-A510",
    "neoverse-n1": "Neoverse N1",
    "neoverse-n2": "Neoverse N2",
    "neoverse-v1": "Neoverse V1",
    "znver3": "Zen 3",
    "znver4": "Zen 4",
}
"""Cores that LLVM has a model for, and whose it is. For other cores that it knows by name it takes one of these."""

_PREFIXES = {
    "A53": "Cortex-A53",
    "CortexA55": "Cortex-A55",
    "A57": "Cortex-A57",
    "CortexA510": "Cortex-A510",
    "N1": "Neoverse N1",
    "N2": "Neoverse N2",
    "V1": "Neoverse V1",
    "Zn3": "Zen 3",
    "Zn4": "Zen 4",
}
_PREFIX = re.compile(r"^(Zn\d|.*?)(Unit|AGU|ALU)")

_UNKNOWN = re.compile(r"note: instruction:\s+(\S+)")
_LLVM_SKIPS = 18
"""From which version on LLVM leaves them out itself."""
_NOTHING = "nop"
"""An instruction of every architecture."""
_SHORT_TURNS, _LONG_TURNS = 50, 150


@dataclass(frozen=True)
class Core:
    """A core that llvm-mca judges code by.

    Attributes:
        cpu: as LLVM names it.
        model: the core whose model LLVM has for it.
        exact: whether that is the best model LLVM has for it in any version; older ones lack some.
        multiply_adds: vector multiply-adds that may begin in a cycle.
    """

    architecture: str
    cpu: str
    model: str
    exact: bool
    multiply_adds: float
    llvm: int


@dataclass(frozen=True)
class BlockCycles:
    """Cycles of a block when it runs again and again.

    Attributes:
        steady: with every turn's values waited for by the next: right for loops, too many for a block between loops.
        throughput: of the busiest unit, nothing being waited for: too few.
    """

    steady: float
    throughput: float


@cache
def find_core(architecture: str, cpu: str, whose: str = "") -> Core:
    """The core that LLVM calls `cpu`; `whose` names the target in messages.

    Raises:
        InputError: there is no llvm-mca, or it has no model for the core.
    """
    multiply_add = ARCHITECTURES[architecture].multiply_add
    trial = [multiply_add.format(register) for register in range(14)] if multiply_add else []
    target = f" of '{whose}'" if whose else ""
    if not trial or not cpu:
        raise InputError(f"LLVM has no model of the core{target}; it has one of {', '.join(CORES)}")
    llvm_tool("llvm-mca")
    try:
        # Sums that do not wait for each other show how many may begin in a cycle.
        answer = _analyse(architecture, cpu, [trial], _SHORT_TURNS)
    except InputError:
        raise InputError(
            f"LLVM {llvm_version()} has no model of the core '{cpu}'{target}; it has one of {', '.join(CORES)}"
        ) from None
    found = _PREFIX.match(answer["TargetInfo"]["Resources"][0])
    model = _PREFIXES.get(found.group(1), found.group(1)) if found else "an unnamed core"
    rate = len(trial) / answer["CodeRegions"][0]["SummaryView"]["BlockRThroughput"]
    return Core(architecture, cpu, model, CORES.get(cpu) == model, rate, llvm_version())


def block_cycles(core: Core, blocks: Sequence[Sequence[str]]) -> list[BlockCycles]:
    """Cycles of each of `blocks`, given as instructions without labels.

    Raises:
        InputError: llvm-mca does not take them.
    """
    if not blocks:
        return []
    short, long = (_cycles(core, blocks, turns) for turns in (_SHORT_TURNS, _LONG_TURNS))
    return [
        # The first and last turns of a run are not like the others; the difference of two runs has neither.
        BlockCycles((b[0] - a[0]) / (_LONG_TURNS - _SHORT_TURNS), a[1])
        for a, b in zip(short, long, strict=True)
    ]


def _cycles(core: Core, blocks: Sequence[Sequence[str]], turns: int) -> list[tuple[int, float]]:
    regions = _analyse(core.architecture, core.cpu, blocks, turns)["CodeRegions"]
    found = {region["Name"]: region["SummaryView"] for region in regions}
    views = [found[f"b{index}"] for index in range(len(blocks))]
    return [(view["TotalCycles"], view["BlockRThroughput"]) for view in views]


def _analyse(architecture: str, cpu: str, blocks: Sequence[Sequence[str]], turns: int) -> Any:
    """What llvm-mca says of blocks. Instructions that its model of the core has nothing on count as ones that do nothing."""
    left = [list(block) for block in blocks]
    while True:
        try:
            return _answer(architecture, cpu, left, turns)
        except InputError as error:
            unknown = _UNKNOWN.search(str(error))
            if unknown is None:
                raise
            known = [[_NOTHING if _mnemonic(line) == unknown[1] else line for line in block] for block in left]
            if known == left:
                raise
            left = known


def _mnemonic(instruction: str) -> str:
    return instruction.split(maxsplit=1)[0] if instruction.strip() else ""


def _answer(architecture: str, cpu: str, blocks: Sequence[Sequence[str]], turns: int) -> Any:
    lines = []
    for index, block in enumerate(blocks):
        lines += [f"# LLVM-MCA-BEGIN b{index}", *block, f"# LLVM-MCA-END b{index}"]
    command = [llvm_tool("llvm-mca"), f"-mtriple={architecture}-linux-gnu", f"-mcpu={cpu}", f"-iterations={turns}"]
    command += ["-json", "-instruction-info=false", "-resource-pressure=false"]
    if ARCHITECTURES[architecture].model_attributes:
        command.append(f"-mattr={ARCHITECTURES[architecture].model_attributes}")
    if llvm_version() >= _LLVM_SKIPS:
        command.append("-skip-unsupported-instructions=any")
    return json.loads(output_of(command, "\n".join(lines) + "\n"))
