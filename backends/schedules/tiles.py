"""Chooses how many outputs a convolution keeps in registers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Machine", "Tile", "choose_tile", "ranked_tiles", "tile_cycles"]


@dataclass(frozen=True)
class Machine:
    """What a schedule needs to know of a target.

    Attributes:
        lanes: float32 elements of a vector.
        registers: vector registers that a tile may fill: outputs, weights and the input.
        l2_bytes: level-2 cache of a core.
        cores: that a kernel's work is cut for.
        stream_bytes: weights that a core reads from memory in a cycle.
        ahead: whether the inputs of a step's pixels each take a register, loaded ahead of their use.
        by_lane: whether multiply-adds take one lane of a register as a factor, so that inputs are loaded as vectors.
    """

    lanes: int
    registers: int
    l2_bytes: int
    cores: int = 1
    stream_bytes: float = 4.0
    ahead: bool = False
    by_lane: bool = False


@dataclass(frozen=True)
class Tile:
    """Outputs in registers: `blocks` of channels times `rows` x `columns` pixels, a vector each."""

    blocks: int
    rows: int
    columns: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


_LATENCY = 8.0
"""Independent accumulators that keep the multipliers busy."""


def choose_tile(machine: Machine, blocks: int, height: int, width: int, steps: int) -> Tile:
    """The tile with the least estimated time for `blocks` x `height` x `width` outputs of `steps` products
    each.
    """
    return ranked_tiles(machine, blocks, height, width, steps)[0]


@lru_cache(maxsize=4096)
def ranked_tiles(machine: Machine, blocks: int, height: int, width: int, steps: int) -> tuple[Tile, ...]:
    """All sensible tiles, the one with the least estimated time first.

    A tile needs one register for each output, one for each weight vector and one for the broadcast input, or one for each
    pixel's input where these are loaded ahead.
    Edges that do not divide are covered by moving the last tile back, so odd sizes cost at most one partial
    tile computed twice.
    """
    found: dict[Tile, float] = {}
    for count in range(1, min(blocks, machine.registers // 2) + 1):
        left = machine.registers - count
        pixels = left // (count + 1) if machine.ahead else (left - 1) // count
        for rows in range(1, min(height, pixels) + 1):
            columns = _even(width, pixels // rows)
            if columns == 0 or _even(height, rows) != rows:
                continue
            tile = Tile(count, rows, columns)
            found[tile] = tile_cycles(tile, machine, blocks, height, width, steps)
    return tuple(sorted(found, key=found.__getitem__)) or (Tile(1, 1, 1),)


def _even(extent: int, most: int) -> int:
    """The tile length up to `most` that cuts `extent` into the fewest, evenly long parts."""
    if most <= 0:
        return 0
    parts = -(-extent // most)
    return -(-extent // parts)


def tile_cycles(tile: Tile, machine: Machine, blocks: int, height: int, width: int, steps: int) -> float:
    """Cycles at one vector product a cycle, two loads a cycle, and a cache line of weights every two
    cycles.
    """
    products = tile.blocks * tile.pixels
    loads = 0.5 * (tile.blocks + tile.pixels)
    weights = tile.blocks * machine.lanes * 4 / 32
    step = max(float(products), loads, weights, _LATENCY / 2)
    step += 0.02 * (tile.blocks + tile.pixels) + 0.05 * weights
    if machine.by_lane:
        # Weights are loaded for every channel and pixels for every fourth, so blocks cost more loads than pixels.
        step += 0.5 * max(0, tile.blocks - tile.pixels + 1)
    elif machine.ahead:
        # Inputs that wait in registers are spilled when they are many; weights are used at once.
        step *= 1 + min(0.06, 0.015 * max(0, tile.pixels - tile.blocks - 1))
    tiles = -(-blocks // tile.blocks) * -(-height // tile.rows) * -(-width // tile.columns)
    panel = tile.blocks * machine.lanes * 4 * steps
    spill = 1.03 if panel > machine.l2_bytes * 3 // 4 else 1.0
    return tiles * (steps * step * spill + 3.0 * products + 20.0)
