"""What zeros may look like inside a weight: families of structures, one to a file, and the formats that store them.

A structure scores units of weights (`unit_scores`), chooses among them (`mask`), takes a weight to the nearest one that has it
(`project`), is found from the weight alone (`recognise`), and says how many bytes such a weight takes (`storage`, `pack`).
It is asked for by its name and sizes, see `STRUCTURES`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from ...frontend.base.errors import InputError
from .base import LayerShape, Structure, check_share
from .bcr import BlockColumnsRows
from .bcrc import ColumnGroups
from .block_lines import BlockColumn, BlockRow
from .block_punched import BlockPunched, DotUnits
from .block_rows import BlockRows
from .connectivity import Connectivity
from .fkw import KernelWeights
from .n_of_m import NOfM, PackedNOfM
from .packed import Packed
from .pattern import Pattern
from .row_block import RowBlock
from .unified import Unified, UnifiedBlocks
from .unstructured import Unstructured

__all__ = [
    "STRUCTURES",
    "BlockColumn",
    "BlockColumnsRows",
    "BlockPunched",
    "BlockRow",
    "BlockRows",
    "ColumnGroups",
    "Connectivity",
    "DotUnits",
    "KernelWeights",
    "LayerShape",
    "NOfM",
    "Packed",
    "PackedNOfM",
    "Pattern",
    "RowBlock",
    "Structure",
    "Unified",
    "UnifiedBlocks",
    "Unstructured",
    "check_share",
    "find_structure",
    "recognise",
]

_FAMILIES: tuple[type[Structure], ...] = (
    Unstructured, RowBlock, BlockColumn, BlockRow, BlockColumnsRows, BlockPunched, DotUnits, Pattern, Connectivity, NOfM,
    Unified,
)  # fmt: skip

STRUCTURES: Mapping[str, type[Structure]] = MappingProxyType(
    {family.form.partition(":")[0]: family for family in _FAMILIES}
)
"""All families by name. Each is spelled as its `form` says, with sizes for the letters or without: ``row-block:4``,
``bcr:16x8``, ``pattern``. N:M is spelled by its numbers, ``2:4``, and with the number of filters that share it, ``2:4:4``."""

_EXACT: tuple[type[Structure], ...] = (Unified, NOfM, Pattern)
"""Families that nothing else is by chance, in the order in which they are looked for."""
_BOXES: tuple[type[Structure], ...] = (BlockPunched, RowBlock, Connectivity, BlockRow, DotUnits)
"""Families of which the largest unit tells most."""


def find_structure(spelled: str) -> Structure:
    """The structure that is spelled so. Raises InputError, naming those there are, for what is none."""
    name, colon, options = spelled.partition(":")
    if name.isdecimal():
        # A number alone says nothing: it could be meant as rows, or as a share.
        name, colon, options = "N", ":", spelled if colon else ""
    if name not in STRUCTURES or name == "N" == spelled:
        raise InputError(f"there is no structure '{spelled}'; there are {', '.join(f.form for f in _FAMILIES)}")
    family = STRUCTURES[name]
    separator = "x" if "x" in family.form.partition(":")[2] else ":"
    numbers = options.split(separator) if colon else []
    fields = [field.name for field in dataclasses.fields(family) if field.type == "int"]
    if len(numbers) > len(fields) or not all(re.fullmatch(r"\d{1,6}", number, re.ASCII) for number in numbers):
        raise InputError(f"'{spelled}' is not spelled as {family.form}, with numbers for the letters")
    return family(**dict(zip(fields, map(int, numbers), strict=False)))


def recognise(weight: Tensor) -> Structure | None:
    """What the zeros, or values, of a weight are, from it alone: the most special structure that explains all of them.

    None where there are no zeros, and no blocks of one value. The weight is filters x input channels of a group x kernel.
    """
    shape = LayerShape.of(weight)
    if not bool((weight != 0).any()):
        return Unstructured() if weight.numel() else None
    if not bool((weight == 0).any()):
        return Unified.recognise(weight)
    for family in _EXACT:
        if (found := family.recognise(weight)) is not None:
            return found
    boxes = [found for family in _BOXES if (found := family.recognise(weight)) is not None]
    if boxes:
        return max(boxes, key=lambda box: box.unit_weights(shape))
    return BlockColumnsRows.recognise(weight) or Unstructured()
