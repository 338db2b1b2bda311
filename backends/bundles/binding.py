"""What binds compiled code to the manifest beside it: a note in the program or library with a checksum of all that the
manifest says of how it is called.

Checksums of files can be made anew by whoever edits them. Then two places of weights that were exchanged, or a name that went
to another input, would still be a bundle, and give wrong outputs. The code says that it was not linked for that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from ...frontend.base.errors import InputError
from ...frontend.base.files import open_regular, sha256
from ..code.weights import WeightPlace, is_weights
from ..machines.targets import Target
from ..state import is_initial

__all__ = ["BOUND", "Binding", "bound_digest", "check_binding", "has_binding", "is_data", "note_of", "note_source"]

BOUND = (
    "runtime",
    "target",
    "inputs",
    "outputs",
    "state",
    "signature",
    "threads",
    "pipeline",
    "certificate",
    "data",
    "memory",
    "versions",
)
"""The manifest's fields that are known before the code is linked, beside ``weights``, ``arena`` and the files of both."""

_OWNER = "reconvene"
_SECTION = ".note.reconvene"


def has_binding(target: Target) -> bool:
    """Whether code for `target` lies in files that have notes."""
    return not any(word in target.triple for word in ("apple", "darwin", "windows"))


@dataclass(frozen=True)
class Binding:
    """Binds the code of a bundle that is being written.

    Attributes:
        said: what the manifest says that is known by now.
        folder: where the files of weights and first values lie.
    """

    target: Target
    said: Mapping[str, Any]
    folder: Path

    def sources(self, work: Path, places: Sequence[WeightPlace] = ()) -> list[Path]:
        """The note as a source, in the folder `work`, to be linked with code that takes its weights from `places`; nothing
        for machines whose code has no notes.
        """
        if not has_binding(self.target):
            return []
        data = {entry.name: sha256(entry) for entry in self.folder.iterdir() if is_data(entry.name)}
        manifest = {**self.said, "weights": [asdict(place) for place in places]}
        path = work / "binding.S"
        path.write_text(note_source(bound_digest(manifest, data), self.target), encoding="utf-8")
        return [path]


def bound_digest(manifest: Mapping[str, Any], data: Mapping[str, str]) -> bytes:
    """The checksum of what `manifest` says, and of its files of weights and first values (SHA-256 by name)."""
    said = {name: manifest[name] for name in (*BOUND, "weights", "arena")}
    text = json.dumps([said, dict(data)], sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def note_source(digest: bytes, target: Target) -> str:
    """Assembly of the note. It takes no memory where the code runs."""
    mark = target.isa.section_mark
    values = ", ".join(map(str, digest))
    return f"""// Which manifest this code was linked for.
    .section {_SECTION}, "", {mark}note
    .balign 4
    .long {len(_OWNER) + 1}, {len(digest)}, 1
    .asciz "{_OWNER}"
    .balign 4
    .byte {values}
    .section .note.GNU-stack, "", {mark}progbits
"""


def note_of(path: Path) -> bytes | None:
    """The checksum in the note of a program or library; None where there is none, or several. Raises OSError if it cannot
    be read.
    """
    with open_regular(path) as stream:
        try:
            data = [section.data() for section in ELFFile(stream).iter_sections() if section.name == _SECTION]
        except (ELFError, ValueError, AssertionError, LookupError, UnicodeDecodeError, AttributeError, TypeError):
            return None
    return data[0][-32:] if len(data) == 1 and len(data[0]) == 12 + 12 + 32 else None


def check_binding(folder: Path, name: str, target: Target, manifest: Mapping[str, Any]) -> None:
    """Raises InputError unless the code in the bundle's file `name` was linked for `manifest`."""
    if not has_binding(target):
        return
    data = {file: entry["sha256"] for file, entry in manifest["files"].items() if is_data(file)}
    if note_of(folder / name) != bound_digest(manifest, data):
        raise InputError(
            f"{name} in bundle '{folder}' was made for another manifest: one of the two was changed; do not use it, export"
            " the model again"
        )


def is_data(name: str) -> bool:
    """Whether a file of this name holds weights, or what a buffer begins with."""
    return is_weights(name) or is_initial(name)
