"""How many outputs a convolution of codes keeps in registers."""

from __future__ import annotations

from .convolution import ConvolutionSpec
from .tiles import Machine, Tile, even_length, tile_cycles

__all__ = ["dot_cycles", "dot_tiles", "gather_cycles", "gather_tile"]

_MOST_SUMS = {"sadalp": 8, "vpadal": 6}
"""LLVM adds the pairs of a step last, so that every output takes registers of its own besides that of its sum."""
_MOST_IN_ORDER = 12
"""Sums of a tile where that is as many as such cores have something to do with while they wait."""
_WAITS, _PACE, _WEIGHTS, _FEW = 12.0, 3.0, 2.0, 8.0
"""Of cores that run in order, by LLVM's model of the Cortex-A53: cycles that a step takes, each output of it, and the weights
of each block; and what it takes more where blocks or pixels are so few that nothing is done while one of them is loaded.
"""
_FINISH_IN_ORDER = 24.0
"""Cycles of an output's way from sum to code on such cores."""
_SPREAD_LOAD = 0.1
"""Cycles of a load that spreads what it loads, beside products: none on some cores, half of a product's on others."""
_LATENCY = 5.0
"""Cycles until the next product may be added to a sum, on x86."""
_LOOK_UP = 1.0
"""Cycles of finding out where the pixels of a vector of weights are."""
_FEW_BLOCKS = 2
"""Blocks of outputs whose weights LLVM has registers for beside the pixels that it keeps."""
_SHARE = 0.6
"""Of the registers, that sums may take where LLVM has several products under way."""
_SLOTS = {"sdot": 1.0, "sadalp": 2.0, "vpadal": 2.0}
"""Multiplications that a step of an output is made of."""
_SPREAD = {"sdot": 0.0, "sadalp": 2.0, "vpadal": 2.0}
"""Instructions that spread the step of a pixel."""
_FINISH, _BEGIN = 6.0, 20.0
"""Cycles of an output's way from sum to code, and of beginning a tile."""
_FOUR = 4


def dot_tiles(spec: ConvolutionSpec, dot: str, machine: Machine, steps: int) -> tuple[Tile, ...]:
    """All sensible tiles, the one with the least estimated time first; `steps` are those of an output."""
    view, found = spec.result, {}
    for blocks in range(1, min(view.blocks, machine.registers // 2) + 1):
        most = (machine.registers - blocks - 1) // blocks
        for rows in range(1, min(view.height, most) + 1):
            if even_length(view.height, rows) != rows:
                continue
            for columns in {even_length(view.width, some) for some in range(1, most // rows + 1)}:
                tile = Tile(blocks, rows, columns)
                if _fits(tile, dot, spec, machine):
                    found[tile] = dot_cycles(spec, tile, dot, machine, steps)
    return tuple(sorted(found, key=lambda tile: (found[tile], tile.rows))) or (Tile(1, 1, 1),)


def _fits(tile: Tile, dot: str, spec: ConvolutionSpec, machine: Machine) -> bool:
    """Whether there are registers for a tile, the weights of a step, and its pixels."""
    sums = tile.blocks * tile.pixels
    if dot in _MOST_SUMS:
        most = _MOST_IN_ORDER if dot == "sadalp" and machine.in_order else _MOST_SUMS[dot]
        return sums <= most or tile.pixels == tile.blocks == 1
    if dot == "sdot":
        return sums + tile.blocks + _vectors(tile, spec.stride[1]) <= machine.registers
    # Where columns of the window are a loop of few steps, LLVM writes it out and keeps pixels for those that share them.
    kept = spec.kernel[1] > 1 and (spec.dilation[1] > 1 or spec.blocks == bool(spec.rest))
    if kept and tile.blocks > _FEW_BLOCKS:
        return False
    pixels = tile.pixels if kept else 1
    if dot == "pmaddwd":  # Products go through registers of their own.
        pixels = _FOUR - 1 + (2 * pixels if pixels > 1 else 1)
        return sums <= _SHARE * machine.registers and sums + tile.blocks + pixels <= machine.registers
    return sums + tile.blocks + pixels <= machine.registers


def _vectors(tile: Tile, stride: int) -> int:
    """Loads of four neighbouring pixels each."""
    return tile.rows * len({x * stride // _FOUR for x in range(tile.columns)})


def dot_cycles(spec: ConvolutionSpec, tile: Tile, dot: str, machine: Machine, steps: int) -> float:
    """Cycles of one image."""
    view = spec.result
    if dot not in _SLOTS:
        more = _SPREAD_LOAD * tile.pixels / machine.rate + max(0.0, _LATENCY - tile.blocks * tile.pixels / machine.rate)
        more *= steps * -(-view.blocks // tile.blocks) * _tiles_of(spec, tile)
        return tile_cycles(tile, machine, view.blocks, view.height, view.width, steps) + more
    products, loads = tile.blocks * tile.pixels, tile.blocks + _vectors(tile, spec.stride[1])
    spread = _SPREAD[dot] * tile.pixels
    step = max(products * _SLOTS[dot] / machine.rate, 0.5 * loads, 4.0 / machine.rate * _SLOTS[dot])
    if machine.issues is not None:
        step = max(step, (products * _SLOTS[dot] + spread + 0.75 * loads + 2.0) / machine.issues)
    if dot != "sdot":
        step = max(step, 1.5 * products + 0.5 * spread)
        if machine.in_order:
            vectors = loads - tile.blocks
            few = _FEW if tile.blocks == 1 or tile.pixels < _FOUR else 0.0
            step = max(step, _WAITS + _PACE * products + _WEIGHTS * tile.blocks + vectors + few)
    step += 0.05 * loads
    tiles = -(-view.blocks // tile.blocks) * _tiles_of(spec, tile)
    finish = _FINISH_IN_ORDER if machine.in_order and dot == "sadalp" else _FINISH
    return tiles * (steps * step + finish * products + _BEGIN)


def gather_tile(spec: ConvolutionSpec, dot: str, machine: Machine, vectors: int) -> Tile:
    """The best tile of one block of outputs, by the estimate, for so many vectors of weights of all blocks."""
    tiles = [tile for tile in dot_tiles(spec, dot, machine, 1) if tile.blocks == 1]
    return min(tiles, key=lambda tile: (gather_cycles(spec, tile, dot, machine, vectors), tile.rows))


def gather_cycles(spec: ConvolutionSpec, tile: Tile, dot: str, machine: Machine, vectors: int) -> float:
    """Cycles of one image whose weights are so many vectors for a step each, and all others zero."""
    steps = -(-vectors // spec.result.blocks)
    return dot_cycles(spec, tile, dot, machine, steps) + _LOOK_UP * vectors * _tiles_of(spec, tile)


def _tiles_of(spec: ConvolutionSpec, tile: Tile) -> int:
    return -(-spec.result.height // tile.rows) * -(-spec.result.width // tile.columns)
