"""Runs programs under QEMU with our plugins: how often every instruction ran, and what it missed in the caches."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...frontend.base.errors import InputError
from .plugin import plugin

__all__ = ["CacheLevel", "Command", "Misses", "Place", "Ran", "count_instructions", "count_misses", "new_misses"]

Place = tuple[str, int]
"""Of an instruction: the file it is in ("" for none) and its offset there."""

Misses = dict[Place, tuple[int, ...]]
"""Of every instruction that missed, its misses in each level of the caches."""

_TIMEOUT_S = 3600


@dataclass(frozen=True)
class CacheLevel:
    """A data cache: its size and how many lines share a set."""

    bytes: int
    ways: int


@dataclass(frozen=True)
class Command:
    """A program under QEMU. `emulator` is QEMU with its options; nothing of our environment reaches the program."""

    emulator: tuple[str, ...]
    program: tuple[str, ...]
    folder: Path | None = None


@dataclass(frozen=True)
class Ran:
    """What ran.

    Attributes:
        counts: of every instruction.
        code: its bytes.
    """

    counts: Mapping[Place, int]
    code: Mapping[Place, bytes]


def count_instructions(command: Command) -> Ran:
    """How often every instruction of `command` ran.

    Raises:
        InputError: the program fails, or QEMU has no plugins.
    """
    counts: Counter[Place] = Counter()
    code: dict[Place, bytes] = {}
    files, lines = _run(command, "blocks", ())
    for fields in lines:
        file, offset, address, count = files[int(fields[1])], int(fields[2], 16), int(fields[3], 16), int(fields[4])
        place = offset if file else address
        for text in fields[5:]:
            counts[file, place] += count
            code[file, place] = data = bytes.fromhex(text)
            place += len(data)
    return Ran(counts, code)


def count_misses(command: Command, levels: Sequence[CacheLevel]) -> Misses:
    """The misses of every instruction of `command` in caches of `levels`, the first level first.

    Raises:
        InputError: as `count_instructions`.
    """
    found: Misses = {}
    files, lines = _run(command, "caches", [f"level={level.bytes}:{level.ways}" for level in levels])
    for fields in lines:
        place = (files[int(fields[1])], int(fields[2], 16))
        misses = tuple(map(int, fields[3:]))
        found[place] = tuple(a + b for a, b in zip(found.get(place, (0,) * len(misses)), misses, strict=True))
    return found


def new_misses(more: Misses, fewer: Misses) -> Misses:
    """What `more` missed beyond `fewer`."""
    found = {}
    for place, misses in more.items():
        before = fewer.get(place, (0,) * len(misses))
        found[place] = tuple(a - b for a, b in zip(misses, before, strict=True))
    return found


def _run(command: Command, name: str, options: Sequence[str]) -> tuple[dict[int, str], list[list[str]]]:
    """The files by index, and the fields of all other lines of what plugin `name` writes."""
    with tempfile.TemporaryDirectory(prefix="reconvene-estimate-") as folder:
        out = Path(folder) / "counts"
        argument = ",".join([f"file={plugin(name)}", f"out={out}", *options])
        emulator, *rest = command.emulator
        # The emulated program sees this environment; with ours, addresses on its stack would differ from day to day.
        result = subprocess.run(
            [emulator, "-plugin", argument, *rest, *command.program],
            cwd=command.folder,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
        )
        text = out.read_text(encoding="utf-8") if out.is_file() else ""
        if result.returncode or not text.endswith("end\n"):
            raise InputError(_failure(emulator, command, result))
    files, lines = {-1: ""}, []
    for line in text.splitlines()[:-1]:
        if line.startswith("file "):
            _, index, path = line.split(" ", 2)
            files[int(index)] = path
        else:
            lines.append(line.split(" "))
    return files, lines


def _failure(emulator: str, command: Command, result: subprocess.CompletedProcess[str]) -> str:
    said = result.stderr.strip().splitlines()
    if any("unknown option" in line.lower() and "plugin" in line for line in said):
        return f"'{emulator}' has no plugins; install a QEMU that has (Debian: apt-get install qemu-user, not qemu-user-static)"
    how = f"was ended by signal {-result.returncode}" if result.returncode < 0 else f"ended with {result.returncode}"
    return f"'{Path(command.program[0]).name}' {how} under {Path(emulator).name}: {said[-1][:300] if said else 'no message'}"
