"""Chooses how many outputs a convolution keeps in registers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from ..dtypes import DTYPES

__all__ = ["Machine", "Tile", "choose_tile", "even_length", "ranked_tiles", "streamed_cycles", "strided", "tile_cycles"]


@dataclass(frozen=True)
class Machine:
    """What a schedule needs to know of a target.

    Attributes:
        vector_bytes: of a vector register.
        registers: vector registers that a tile may fill: outputs, weights and the input.
        l2_bytes: level-2 cache of a core.
        cores: that a kernel's work is cut for.
        stream_bytes: weights that a core reads from memory in a cycle.
        pixel_registers: that the input of each pixel of a tile takes, because the compiler loads it ahead of its use; with
            0 one register serves all pixels in turn.
        by_lane: whether multiply-adds take one lane of a register as a factor, so that inputs are loaded as vectors.
        in_order: whether instructions start in the order of the code, for which LLVM writes more turns of loops out.
        halves: whether instructions on half a vector run at twice the rate.
        rate: vector products that start in a cycle.
        issues: instructions that start in a cycle, where that may be what a loop waits for; None where it is not.
        keeps_nans: whether the maximum of two vectors is NaN where one of them is, as IEEE 754 has it since 2019.
        l1_bytes: first data cache of a core.
        index: the type of indices into lists of places, see `Architecture`.
        wide: registers that a vector takes; of the factor that is spread over one, only one part at a time.
        dot: how products of codes are added to sums of int32: ``vnni`` (four of unsigned by signed bytes), ``sdot`` (four of
            signed bytes), ``sadalp`` and ``vpadal`` (two of bytes in 16 bits, by which sums grow in pairs, on 64 and 32 bits),
            ``pmaddwd`` (two of 16 bits), ``smlad`` (the same, without vectors), or empty where there is no instruction for it.
    """

    vector_bytes: int
    registers: int
    l2_bytes: int
    cores: int = 1
    stream_bytes: float = 4.0
    pixel_registers: int = 0
    by_lane: bool = False
    in_order: bool = False
    halves: bool = False
    rate: float = 1.0
    issues: float | None = None
    keeps_nans: bool = False
    l1_bytes: int = 32768
    index: str = "int32"
    wide: int = 1
    dot: str = ""

    @property
    def codes(self) -> str:
        """The type that codes have in memory: int8, or the same numbers moved up by 128 where instructions ask for that."""
        return "uint8" if self.dot == "vnni" else "int8"

    @property
    def waits_for_loads(self) -> bool:
        """Whether loads stop what comes behind them: by LLVM's model of the Cortex-A53, which is what judges such cores."""
        return self.by_lane and self.in_order

    def for_sums(self, elements: str) -> Machine:
        """The machine as kernels see it whose sums are wider than the `elements` of a vector: one takes several registers."""
        wide = DTYPES[DTYPES[elements].accumulator].bytes * self.lanes(elements) // self.vector_bytes
        return (
            replace(self, vector_bytes=self.vector_bytes * wide, wide=wide, rate=self.rate / wide) if wide > 1 else self
        )

    def one_by_one(self, elements: str) -> Machine:
        """The machine as kernels see it that add products of `elements` one by one: without vectors, sums of integers are in
        general registers, of which there are fewer than of floating point, and a pixel stays in one for all columns of a window
        that share it.
        """
        if self.lanes() > 1 or not DTYPES[elements].is_code:
            return self
        return replace(self, registers=min(self.registers, _GENERAL), pixel_registers=1, by_lane=False)

    def lanes(self, dtype: str = "float32") -> int:
        """Elements of a type in a vector; of codes as many as it holds sums of their products."""
        kind = DTYPES[dtype]
        return self.vector_bytes // (DTYPES[kind.accumulator] if kind.is_code else kind).bytes


@dataclass(frozen=True)
class Tile:
    """Outputs in registers: `blocks` of channels times `rows` x `columns` pixels, a vector each."""

    blocks: int
    rows: int
    columns: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


_GENERAL = 11
"""General registers of 32-bit ARM that a tile of codes may fill beside a pointer, a counter and what is under way."""

_LATENCY = 8.0
"""Independent accumulators that keep the multipliers busy."""

_MANY_REGISTERS = 24
"""Vector registers from which on it does no harm that LLVM loads inputs ahead of their use."""

_WAITS = 0.5
"""Share of the reading that an in-order core does not hide."""


def choose_tile(machine: Machine, blocks: int, height: int, width: int, steps: int) -> Tile:
    """The tile with the least estimated time for `blocks` x `height` x `width` outputs of `steps` products
    each.
    """
    return ranked_tiles(machine, blocks, height, width, steps)[0]


def strided(machine: Machine, stride: int) -> Machine:
    """`machine` as tiles see it in a convolution of this stride along a row.

    Neighbouring outputs share fewer pixels, and where LLVM writes several columns of the window out, each has its own.
    """
    if not machine.by_lane or stride == 1:
        return machine
    return replace(machine, registers=machine.registers - (4 if machine.pixel_registers == 1 else 1))


@lru_cache(maxsize=4096)
def ranked_tiles(machine: Machine, blocks: int, height: int, width: int, steps: int) -> tuple[Tile, ...]:
    """All sensible tiles, the one with the least estimated time first.

    A tile needs one register for each output, one for each weight vector and one for the broadcast input, or some for each
    pixel's input where these are loaded ahead.
    Edges that do not divide are covered by moving the last tile back, so odd sizes cost at most one partial
    tile computed twice.
    """
    found: dict[Tile, float] = {}
    for count in range(1, min(blocks, machine.registers // 2) + 1):
        vectors = count * machine.wide
        left = machine.registers - vectors
        ahead = machine.pixel_registers or (count == 1 and _sums_move(machine))
        pixels = left // (vectors + ahead) if ahead else (left - 1) // vectors
        for rows in range(1, min(height, pixels) + 1):
            if even_length(height, rows) != rows:
                continue
            for columns in {even_length(width, most) for most in range(1, pixels // rows + 1)}:
                tile = Tile(count, rows, columns)
                found[tile] = tile_cycles(tile, machine, blocks, height, width, steps)
    # Of equal ones the flattest: pixels of a row are shared by the columns of a window.
    return tuple(sorted(found, key=lambda tile: (found[tile], tile.rows))) or (Tile(1, 1, 1),)


def _sums_move(machine: Machine) -> bool:
    """Whether the product of an input that is read once takes the register of the input, and the sum moves there.

    LLVM does that to multiply-adds on x86, which write over one of their three registers, where there is one block. With few
    registers it then runs out of them.
    """
    return not machine.by_lane and machine.lanes() > 1 and machine.registers < _MANY_REGISTERS


def even_length(extent: int, most: int) -> int:
    """The tile length up to `most` that cuts `extent` into the fewest, evenly long parts."""
    parts = -(-extent // most)
    return -(-extent // parts)


def tile_cycles(tile: Tile, machine: Machine, blocks: int, height: int, width: int, steps: int) -> float:
    """Cycles at the machine's rate of products, two loads a cycle, and a cache line of weights every two cycles."""
    products = tile.blocks * tile.pixels
    loads = 0.5 * (tile.blocks + tile.pixels)
    weights = tile.blocks * machine.vector_bytes / 32
    step = max(products / machine.rate, loads, weights, _LATENCY / 2)
    if machine.lanes() == 1:  # Without vectors a load takes the place of a product.
        step = max(step, products + tile.blocks + tile.pixels)
    step += 0.02 * (tile.blocks + tile.pixels) + 0.05 * weights
    if machine.pixel_registers > 1:
        # Every channel of a pixel is spread over a register, and every vector of weights is loaded alone.
        step += 0.5 * (tile.pixels + tile.blocks)
    elif machine.waits_for_loads:
        # Such a core waits for the loads of a step: about so long by LLVM's model of the Cortex-A53, whatever the tile.
        step += 12.0 if tile.pixels > 1 else 2.0 * tile.blocks
        step += max(1.0 * (tile.blocks - tile.pixels), 0.5 * (tile.pixels - tile.blocks))
    elif machine.by_lane:
        # Weights are loaded for every channel and pixels for every fourth, so blocks cost more loads than pixels.
        step += 0.5 * max(0, tile.blocks - tile.pixels + 1)
    tiles = -(-blocks // tile.blocks) * -(-height // tile.rows) * -(-width // tile.columns)
    panel = tile.blocks * machine.vector_bytes * steps
    spill = 1.03 if panel > machine.l2_bytes * 3 // 4 else 1.0
    return tiles * (steps * step * spill + 3.0 * products + 20.0)


def streamed_cycles(machine: Machine, compute: float, read: float) -> float:
    """Cycles of computing while `read` bytes come from memory. Cores that run in order wait for some of them."""
    memory = read / machine.stream_bytes
    waits = _WAITS * min(compute, memory) if machine.in_order else 0.0
    return max(compute, memory) + waits
