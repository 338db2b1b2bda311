"""Cycles of basic blocks, by llvm-mca's model of a core."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...frontend.base.errors import InputError
from ..machines.architectures import ARCHITECTURES
from .products import PRODUCTS, Product
from .tools import llvm_tool, llvm_version, output_of

__all__ = ["CORES", "BlockCycles", "Core", "block_cycles", "find_core"]

CORES = {
    "cortex-m4": "Cortex-M4",
    "cortex-m7": "Cortex-M7",
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
    "M4": "Cortex-M4",
    "M7": "Cortex-M7",
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
_TRIED = 12
"""Registers that sums are in; see `products.Product.sample`."""


@dataclass(frozen=True)
class Core:
    """A core that llvm-mca judges code by.

    Attributes:
        cpu: as LLVM names it.
        model: the core whose model LLVM has for it.
        exact: whether that is the best model LLVM has for it in any version; older ones lack some.
        rates: instructions of each kind of `products.PRODUCTS` that may begin in a cycle, by the kind's name; kinds that the
            model has nothing on are left out.
    """

    architecture: str
    cpu: str
    model: str
    exact: bool
    rates: tuple[tuple[str, float], ...]
    llvm: int

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds of the usual float32 vectors that may begin in a cycle."""
        return self.rates[0][1]

    def least_cycles(self, counts: Mapping[Product, int]) -> float:
        """What so many instructions of each kind take if nothing else does; those without a rate take none.

        Kinds share the units that they begin on, so that no two of them begin in the same place.
        """
        rates = dict(self.rates)
        return sum(count / rates[kind.name] for kind, count in counts.items() if kind.name in rates)


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
    kinds = PRODUCTS.get(architecture, ())
    target = f" of '{whose}'" if whose else ""
    if not kinds or not cpu:
        raise InputError(f"LLVM has no model of the core{target}; it has one of {', '.join(CORES)}")
    llvm_tool("llvm-mca")
    answers = {kind.name: _trial(architecture, cpu, kind) for kind in kinds}
    answer = next((found for found in answers.values() if found is not None), None)
    if answer is None:
        raise InputError(
            f"LLVM {llvm_version()} has no model of the core '{cpu}'{target}; it has one of {', '.join(CORES)}"
        )
    found = _PREFIX.match(answer["TargetInfo"]["Resources"][0])
    model = _PREFIXES.get(found.group(1), found.group(1)) if found else "an unnamed core"
    rates = tuple((name, _rate(found)) for name, found in answers.items() if found is not None)
    return Core(architecture, cpu, model, CORES.get(cpu) == model, rates, llvm_version())


def _trial(architecture: str, cpu: str, kind: Product) -> Any:
    """llvm-mca's answer for products that do not wait for each other, which shows how many may begin in a cycle; None where
    the core has no such instructions, or its model nothing on them.
    """
    try:
        answer = _answer(architecture, cpu, [[kind.sample.format(register) for register in range(_TRIED)]], 1)
    except InputError:
        return None
    (region,) = answer["CodeRegions"]
    return answer if region["SummaryView"]["Instructions"] == _TRIED else None


def _rate(answer: Any) -> float:
    (region,) = answer["CodeRegions"]
    return float(_TRIED / region["SummaryView"]["BlockRThroughput"])


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
    command = [
        llvm_tool("llvm-mca"),
        f"-mtriple={ARCHITECTURES[architecture].model_triple}",
        f"-mcpu={cpu}",
        f"-iterations={turns}",
    ]
    command += ["-json", "-instruction-info=false", "-resource-pressure=false"]
    if ARCHITECTURES[architecture].model_attributes:
        command.append(f"-mattr={ARCHITECTURES[architecture].model_attributes}")
    if llvm_version() >= _LLVM_SKIPS:
        command.append("-skip-unsupported-instructions=any")
    return json.loads(output_of(command, "\n".join(lines) + "\n"))
