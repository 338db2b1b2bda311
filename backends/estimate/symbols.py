"""Names for the code of an ELF file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

__all__ = ["Symbols", "kernel_name", "symbols_by_address", "symbols_of"]

_ENTRY, _BODY = "__tvm_ffi_", "_compute_"


@dataclass(frozen=True)
class Symbols:
    """Functions of a file by the offset they begin at, in order."""

    offsets: tuple[int, ...]
    names: tuple[str, ...]

    def at(self, offset: int) -> str | None:
        """The function that begins last before `offset`. Functions without a name count to the one before them: such
        are the bodies of TVM's parallel loops.
        """
        index = bisect_right(self.offsets, offset)
        return self.names[index - 1] if index else None

    @property
    def kernels(self) -> frozenset[str]:
        """Names of TVM's kernels among the functions."""
        return frozenset(name.removeprefix(_ENTRY) for name in self.names if name.startswith(_ENTRY))


def kernel_name(function: str) -> str:
    """The kernel that TVM made `function` for: its entry, or its body."""
    return function.removeprefix(_ENTRY).removesuffix(_BODY)


def symbols_of(path: Path) -> Symbols:
    """The functions of an ELF file; none for another kind of file, or one without symbols."""
    return _symbols(path, by_address=False)


def symbols_by_address(path: Path) -> Symbols:
    """`symbols_of`, by where they lie in memory: for a program that no system maps."""
    return _symbols(path, by_address=True)


def _symbols(path: Path, by_address: bool) -> Symbols:
    found: dict[int, str] = {}
    try:
        with path.open("rb") as stream:
            file = ELFFile(stream)
            segments = [s.header for s in file.iter_segments() if s["p_type"] == "PT_LOAD"]
            for address, name in _functions(file):
                offset = address if by_address else _offset(address, segments)
                # Among names for one place, a kernel's wins.
                if offset is not None and (offset not in found or name.startswith(_ENTRY) or name.endswith(_BODY)):
                    found[offset] = name
    except (ELFError, ValueError, OSError):
        return Symbols((), ())
    return Symbols(tuple(sorted(found)), tuple(found[offset] for offset in sorted(found)))


def _offset(address: int, segments: Sequence[Any]) -> int | None:
    """In the file, of what is loaded at `address`."""
    held = (s for s in segments if s["p_vaddr"] <= address < s["p_vaddr"] + s["p_filesz"])
    return next((s["p_offset"] + address - s["p_vaddr"] for s in held), None)


def _functions(file: ELFFile) -> list[tuple[int, str]]:
    # The last bit of an address of 32-bit ARM says which of two encodings the code there is in.
    kept = ~1 if file["e_machine"] == "EM_ARM" else ~0
    return [
        (symbol["st_value"] & kept, symbol.name)
        for table in file.iter_sections()
        if isinstance(table, SymbolTableSection)
        for symbol in table.iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["type"] in ("STT_FUNC", "STT_GNU_IFUNC")
    ]
