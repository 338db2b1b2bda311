"""Sources that tell a program where its weights and the values between its kernels lie: runtime/memory.h."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..code.weights import WeightPlace
from ..lowering.arena import Arena, Slot
from ..machines.targets import Target

__all__ = ["STATE", "WEIGHTS", "constants_assembly", "places_source", "state_source"]

WEIGHTS, STATE = "reconvene_weights", "reconvene_state"
"""The weights, and what the state begins with, in a program that has them among its constants."""


def places_source(places: Sequence[WeightPlace], files: Mapping[str, int], arena: Arena, *, inside: bool) -> str:
    """C++ that defines what memory.h declares. `files`: bytes by name; with `inside`, one that is part of the program."""
    data = WEIGHTS if inside else "nullptr"
    order = {name: index for index, name in enumerate(files)}
    rows = [f'    {{"{name}", {size}, {data}}},' for name, size in files.items()]
    weights = [(order[place.file], place) for place in places]
    lines = ['#include "memory.h"']
    if inside:
        lines.append(f'extern "C" const unsigned char {WEIGHTS}[];')
    # C++ has no empty arrays.
    lines += ["const WeightFile kWeightFiles[] = {", *rows, "    {nullptr, 0, nullptr}};"]
    lines += [*_pieces("kWeights", weights), *_pieces("kSlots", [(0, slot) for slot in arena.slots])]
    lines += [
        f"const int kWeightFileCount = {len(files)}, kWeightCount = {len(places)}, kSlotCount = {len(arena.slots)};",
        f"const size_t kArenaBytes = {arena.bytes};",
    ]
    return "\n".join(lines) + "\n"


def _pieces(name: str, pieces: Sequence[tuple[int, WeightPlace | Slot]]) -> list[str]:
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


def state_source(offsets: Sequence[int | None]) -> str:
    """C++ that says where the state's first values lie in the program; None for zeros."""
    rows = ", ".join("nullptr" if offset is None else f"{STATE} + {offset}" for offset in offsets)
    return (
        f'#include "model.h"\nextern "C" const unsigned char {STATE}[];\n'
        f"const unsigned char* const kStateInitials[] = {{{rows or 'nullptr'}}};\n"
    )


def constants_assembly(target: Target, symbol: str, alignment: int, file: str) -> str:
    """Assembly that makes `file` part of a program, among its constants, as `symbol`."""
    mark = target.isa.section_mark
    return f"""// {file.rpartition("/")[2]}, as it is, among a program's constants.
    .section .rodata.{symbol}, "a", {mark}progbits
    .balign {alignment}
    .global {symbol}
{symbol}:
    .incbin "{file}"
    .section .note.GNU-stack, "", {mark}progbits
"""
