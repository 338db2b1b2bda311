"""What an estimate is made of, and how counts become cycles, bytes and milliseconds."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...frontend.base.errors import InputError
from .assembly import disassemble, modelled
from .blocks import Block
from .board import BoardModel
from .core_model import BlockCycles, Core, block_cycles
from .counting import Misses
from .products import Product, product_of
from .tools import llvm_version

__all__ = ["LINE_BYTES", "Cost", "Estimate", "HotBlock", "costs_of", "nothing"]

LINE_BYTES = 64

_LEFT_OUT = 0.002
"""Share of an owner's instructions, in its least used blocks, that llvm-mca is not asked about."""


@dataclass(frozen=True)
class HotBlock:
    """The code that a kernel spends most of its time in: how often it ran, its cycles, its assembly."""

    count: int
    cycles: BlockCycles
    assembly: tuple[str, ...]


@dataclass(frozen=True)
class Cost:
    """Of one kernel, in one pass: all of its calls together.

    Attributes:
        instructions: that ran.
        multiply_adds: of those, multiply-adds of whole vectors, see `products`.
        cycles: each block's steady state, summed: the figure to compare.
        throughput_cycles: of the busiest unit, nothing waiting for anything: a lower bound.
        floor_cycles: what the multiply-adds alone take, each kind at the core's best rate.
        l1_misses, last_misses: of the first and of the last cache.
        memory_bytes: read from memory.
        milliseconds: the larger of computing and of reading memory, at the board's clock; None without a clock.
        hottest: None where nothing of the kernel was disassembled.
    """

    name: str
    instructions: int
    multiply_adds: int
    cycles: float
    throughput_cycles: float
    floor_cycles: float
    l1_misses: int
    last_misses: int
    memory_bytes: int
    milliseconds: float | None
    hottest: HotBlock | None = None

    @property
    def efficiency(self) -> float | None:
        """Share of its cycles that a kernel needs for its multiply-adds; None for one without any."""
        return self.floor_cycles / self.cycles if self.multiply_adds and self.cycles else None


@dataclass(frozen=True)
class Estimate:
    """What one pass costs, kernel by kernel, and how that was found.

    Attributes:
        kernels: dearest first.
        other: all that ran besides: the runtime, the loader of the program, the C library.
        core: whose model the cycles are by.
        caches: bytes and ways of each level, from the first.
        tools: versions.
        limits: what the figures leave out, in sentences.
        state: name, shape and dtype of each buffer that the model keeps from call to call.
    """

    target: str
    core: Core
    board: BoardModel
    caches: tuple[tuple[int, int], ...]
    kernels: tuple[Cost, ...]
    other: Cost
    tools: Mapping[str, str]
    limits: tuple[str, ...]
    state: tuple[Mapping[str, Any], ...] = ()

    @property
    def total(self) -> Cost:
        """All kernels and everything else."""
        return self.sum_of([*self.kernels, self.other])

    def sum_of(self, costs: Sequence[Cost]) -> Cost:
        """Several costs as one, called ``total``."""
        return _sum(costs)

    def to_dict(self) -> dict[str, Any]:
        """The estimate in JSON's types, its total included."""
        data = asdict(self)
        data["total"] = asdict(self.total)
        for entry, cost in zip(data["kernels"], self.kernels, strict=True):
            entry["efficiency"] = cost.efficiency
        data["total"]["efficiency"] = self.total.efficiency
        return data

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def nothing(name: str) -> Cost:
    """The cost of what never ran."""
    return Cost(name, 0, 0, 0.0, 0.0, 0.0, 0, 0, 0, 0.0)


def costs_of(
    blocks: Sequence[Block],
    misses: Misses,
    owner: Callable[[str, int], str],
    core: Core,
    board: BoardModel,
    aside: str,
) -> dict[str, Cost]:
    """The cost of each owner of code. `owner` names it for a file and an offset; `aside` is the one of all code that is not
    asked about, of which LLVM need not know all.

    Raises:
        InputError: nothing ran, or LLVM does not know an instruction that counts.
    """
    if not blocks:
        raise InputError("nothing was counted: the program ran no code in its measured pass")
    owners = {block: owner(block.file, block.offset) for block in blocks}
    texts = disassemble({code for block in blocks for code in block.code}, core.architecture)
    asked = _known(_hot(blocks, owners), texts, owners, aside)
    assembly = {block: [texts[code] for code in block.code] for block in asked}
    cycles = dict(zip(asked, _cycles(core, [assembly[block] for block in asked]), strict=True))
    kinds = {code: product_of(text, core.architecture) for code, text in texts.items()}
    grouped: defaultdict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        grouped[owners[block]].append(block)
    everywhere = _rates(blocks, cycles)
    lost = _misses_by_owner(misses, owner)
    found = {}
    for name, group in grouped.items():
        steady, throughput = _scaled(group, cycles, everywhere)
        products: Counter[Product] = Counter()
        for block in group:
            products.update({kind: block.count * n for kind, n in _kinds(block, kinds).items()})
        first, last = lost.get(name, (0, 0))
        cost = Cost(
            name=name,
            instructions=sum(block.instructions for block in group),
            multiply_adds=products.total(),
            cycles=steady,
            throughput_cycles=throughput,
            floor_cycles=core.least_cycles(products),
            l1_misses=first,
            last_misses=last,
            memory_bytes=last * LINE_BYTES,
            milliseconds=None,
            hottest=_hottest(group, cycles, assembly),
        )
        found[name] = replace(cost, milliseconds=_milliseconds(cost, board))
    return found


def _hot(blocks: Sequence[Block], owners: Mapping[Block, str]) -> list[Block]:
    """The blocks worth asking about: of every owner all but the least used. What one owner does has no say in another's,
    since the counts of the runtime differ a little from run to run.
    """
    grouped: defaultdict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        grouped[owners[block]].append(block)
    return [block for group in grouped.values() for block in _most_used(group)]


def _known(hot: Sequence[Block], texts: Mapping[bytes, str], owners: Mapping[Block, str], aside: str) -> list[Block]:
    """Those that LLVM knows every instruction of. One that it does not know would count for nothing, and its block for less
    than it takes.
    """
    found = []
    for block in hot:
        unknown = next((code for code in block.code if code not in texts), None)
        if unknown is None:
            found.append(block)
        elif owners[block] != aside:
            raise InputError(
                f"LLVM {llvm_version()} does not know the instruction {unknown.hex()} of '{owners[block]}'; install a newer"
                " LLVM (Debian: apt-get install llvm-22)"
            )
    if not found:
        raise InputError(f"LLVM {llvm_version()} knows none of the code that ran; install a newer one")
    return found


def _kinds(block: Block, kinds: Mapping[bytes, Product | None]) -> Counter[Product]:
    """The multiply-adds of a block, by kind."""
    return Counter(kind for code in block.code if (kind := kinds.get(code)) is not None)


def _most_used(group: Sequence[Block]) -> list[Block]:
    wanted = (1 - _LEFT_OUT) * sum(block.instructions for block in group)
    found, covered = [], 0
    for block in sorted(group, key=lambda block: -block.instructions):
        if covered >= wanted:
            break
        found.append(block)
        covered += block.instructions
    return found


def _cycles(core: Core, assembly: Sequence[Sequence[str]]) -> list[BlockCycles]:
    """Cycles of blocks; equal ones are asked about once."""
    texts = [tuple(modelled(lines, core.architecture, core.model)) for lines in assembly]
    different = list(dict.fromkeys(texts))
    found = dict(zip(different, block_cycles(core, different), strict=True))
    return [found[text] for text in texts]


def _rates(group: Sequence[Block], cycles: Mapping[Block, BlockCycles]) -> tuple[float, float] | None:
    """Cycles for each instruction in the blocks of `group` that have cycles."""
    known = [block for block in group if block in cycles]
    instructions = sum(block.instructions for block in known)
    if not instructions:
        return None
    steady = sum(block.count * cycles[block].steady for block in known)
    throughput = sum(block.count * cycles[block].throughput for block in known)
    return steady / instructions, throughput / instructions


def _scaled(
    group: Sequence[Block], cycles: Mapping[Block, BlockCycles], everywhere: tuple[float, float] | None
) -> tuple[float, float]:
    """Both sums for `group`; blocks without cycles take as many for each instruction as the rest of the group."""
    steady, throughput = _rates(group, cycles) or everywhere or (0.0, 0.0)
    instructions = sum(block.instructions for block in group)
    return steady * instructions, throughput * instructions


def _misses_by_owner(misses: Misses, owner: Callable[[str, int], str]) -> dict[str, tuple[int, int]]:
    found: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for (file, offset), counts in misses.items():
        entry = found[owner(file, offset)]
        entry[0] += counts[0]
        entry[1] += counts[-1]
    return {name: (first, last) for name, (first, last) in found.items()}


def _hottest(
    group: Sequence[Block], cycles: Mapping[Block, BlockCycles], assembly: Mapping[Block, Sequence[str]]
) -> HotBlock | None:
    known = [block for block in group if block in cycles]
    if not known:
        return None
    block = max(known, key=lambda block: block.count * cycles[block].steady)
    return HotBlock(block.count, cycles[block], tuple(assembly[block]))


def _milliseconds(cost: Cost, board: BoardModel) -> float | None:
    if board.clock_mhz is None:
        return None
    return max(cost.cycles / (1e3 * board.clock_mhz), cost.memory_bytes / (1e3 * board.memory_mb_s))


def _sum(costs: Sequence[Cost]) -> Cost:
    times = [cost.milliseconds for cost in costs if cost.milliseconds is not None]
    return Cost(
        name="total",
        instructions=sum(cost.instructions for cost in costs),
        multiply_adds=sum(cost.multiply_adds for cost in costs),
        cycles=sum(cost.cycles for cost in costs),
        throughput_cycles=sum(cost.throughput_cycles for cost in costs),
        floor_cycles=sum(cost.floor_cycles for cost in costs),
        l1_misses=sum(cost.l1_misses for cost in costs),
        last_misses=sum(cost.last_misses for cost in costs),
        memory_bytes=sum(cost.memory_bytes for cost in costs),
        milliseconds=sum(times) if len(times) == len(costs) else None,
    )
