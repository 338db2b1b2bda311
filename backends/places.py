"""Sources that tell a program where its weights and the values between its kernels lie: runtime/memory.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .arena import Arena, Slot
from .targets import Target
from .weights import Place

__all__ = ["SYMBOL", "places_source", "weights_assembly"]

SYMBOL = "reconvene_weights"
"""The weights in a program that has them among its constants."""


def places_source(places: Sequence[Place], files: Mapping[str, int], arena: Arena, *, inside: bool) -> str:
    """C++ that defines what memory.h declares. `files`: bytes by name; with `inside`, one that is part of the program."""
    data = SYMBOL if inside else "nullptr"
    order = {name: index for index, name in enumerate(files)}
    rows = [f'    {{"{name}", {size}, {data}}},' for name, size in files.items()]
    weights = [(order[place.file], place) for place in places]
    lines = ['#include "memory.h"']
    if inside:
        lines.append(f'extern "C" const unsigned char {SYMBOL}[];')
    # C++ has no empty arrays.
    lines += ["const WeightFile kWeightFiles[] = {", *rows, "    {nullptr, 0, nullptr}};"]
    lines += [*_pieces("kWeights", weights), *_pieces("kSlots", [(0, slot) for slot in arena.slots])]
    lines += [
        f"const int kWeightFileCount = {len(files)}, kWeightCount = {len(places)}, kSlotCount = {len(arena.slots)};",
        f"const size_t kArenaBytes = {arena.bytes};",
    ]
    return "\n".join(lines) + "\n"


def _pieces(name: str, pieces: Sequence[tuple[int, Place | Slot]]) -> list[str]:
    shapes = {piece.shape: "" for _, piece in pieces}
    lines = []
    for index, shape in enumerate(shapes):
        shapes[shape] = f"{name}Shape{index}"
        lines.append(f"static const int64_t {shapes[shape]}[] = {{{', '.join(map(str, shape)) or '0'}}};")
    rows = [
        f'    {{{file}, {piece.offset}, "{piece.dtype}", {len(piece.shape)}, {shapes[piece.shape]}}},'
        for file, piece in pieces
    ]
    return [*lines, f"const Piece {name}[] = {{", *rows, '    {0, 0, "", 0, nullptr}};']


def weights_assembly(target: Target, alignment: int, file: str) -> str:
    """Assembly that makes `file` part of a program, among its constants."""
    mark = "%" if target.architecture == "arm" else "@"
    return f"""// The model's weights, as they are in their file, among a program's constants.
    .section .rodata.{SYMBOL}, "a", {mark}progbits
    .balign {alignment}
    .global {SYMBOL}
{SYMBOL}:
    .incbin "{file}"
    .section .note.GNU-stack, "", {mark}progbits
"""
