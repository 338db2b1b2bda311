"""What ELF files say about themselves: machine, symbols, needed versions, and sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

__all__ = ["Sizes", "defined_symbols", "machine_of", "needed_glibc", "section_sizes", "sizes_of"]

_ALLOCATED, _WRITABLE = 2, 1


@dataclass(frozen=True)
class Sizes:
    """Bytes by where they lie: `code` and `constants` in flash, `data` in both, `zeros` in RAM only."""

    code: int
    constants: int
    data: int
    zeros: int

    @property
    def flash(self) -> int:
        return self.code + self.constants + self.data

    @property
    def ram(self) -> int:
        return self.data + self.zeros


def machine_of(path: Path) -> str | None:
    """The machine in the ELF header, as ``EM_AARCH64``, or None for another kind of file."""
    try:
        with path.open("rb") as stream:
            return str(ELFFile(stream).header["e_machine"])
    except (ELFError, ValueError, AssertionError):
        return None


def defined_symbols(objects: Iterable[Path], *, local: bool = False) -> tuple[str, ...]:
    """Names of the functions and variables in `objects` that others can see, or with `local` of all."""
    names = []
    for path in objects:
        with path.open("rb") as stream:
            for table in ELFFile(stream).iter_sections():
                if isinstance(table, SymbolTableSection):
                    names += [
                        symbol.name
                        for symbol in table.iter_symbols()
                        if symbol["st_shndx"] != "SHN_UNDEF"
                        and (symbol["st_info"]["type"] in ("STT_FUNC", "STT_OBJECT"))
                        and (local or symbol["st_info"]["bind"] != "STB_LOCAL")
                    ]
    return tuple(dict.fromkeys(names))


def needed_glibc(path: Path) -> str | None:
    """The oldest version of the C library that the program or library runs with; None if it needs none."""
    found = [(0, 0)]
    with path.open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    names = [version.name for version in versions if version.name.startswith("GLIBC_")]
                    found += [(int(a), int(b)) for a, b in (name[6:].split(".")[:2] for name in names)]
    newest = max(found)
    return f"{newest[0]}.{newest[1]}" if newest != (0, 0) else None


def sizes_of(objects: Iterable[Path]) -> Sizes:
    """Sizes of what `objects` put into memory."""
    code = constants = data = zeros = 0
    for path in objects:
        with path.open("rb") as stream:
            for section in ELFFile(stream).iter_sections():
                flags, size = section["sh_flags"], int(section["sh_size"])
                if not flags & _ALLOCATED:
                    continue
                if section["sh_type"] == "SHT_NOBITS":
                    zeros += size
                elif flags & 4:
                    code += size
                elif flags & _WRITABLE:
                    data += size
                else:
                    constants += size
    return Sizes(code, constants, data, zeros)


def section_sizes(path: Path) -> dict[str, int]:
    """Bytes of each section of a program."""
    with path.open("rb") as stream:
        return {section.name: int(section["sh_size"]) for section in ELFFile(stream).iter_sections()}
