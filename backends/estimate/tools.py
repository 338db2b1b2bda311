"""The programs that an estimate is made with: where they are, which versions, and what to install when they are missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ...frontend.base import cache_folder as folders
from ...frontend.base.errors import InputError

__all__ = ["cache_folder", "compiler", "llvm_tool", "llvm_version", "output_of", "version_of"]

_LLVM_FOLDERS = ("/usr/lib/llvm-{version}/bin", "/usr/local/opt/llvm@{version}/bin")
_LLVM_VERSIONS = range(30, 13, -1)


def cache_folder() -> Path:
    """Where what is slow to make is kept between runs: in the user's cache folder.

    Raises:
        InputError: it cannot be made.
    """
    folder = folders.cache_folder() / "estimate"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make '{folder}': {error.strerror}; set RECONVENE_CACHE to a folder of yours"
        ) from None
    return folder


def output_of(command: Sequence[str], given: str | None = None, what: str | None = None) -> str:
    """What `command` writes to stdout.

    Raises:
        InputError: it fails; the message has its last line of stderr.
    """
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode} without a message"]
        raise InputError(f"{what or Path(command[0]).name} failed: {lines[-1][:300]}")
    return result.stdout


@cache
def version_of(program: str) -> str:
    """The first line with digits that ``PROGRAM --version`` writes."""
    lines = output_of([program, "--version"]).splitlines()
    return next((line.strip() for line in lines if any(c.isdigit() for c in line)), "")


def compiler() -> str:
    """A C compiler for this machine.

    Raises:
        InputError: there is none.
    """
    for name in ("cc", "gcc", "clang"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise InputError("there is no C compiler for QEMU's plugins; install one (Debian: apt-get install gcc)")


@cache
def llvm_tool(name: str) -> str:
    """LLVM's program `name` (``llvm-mca``, ``llvm-mc``, ``llvm-nm``) of the newest LLVM that has llvm-mca.

    Raises:
        InputError: there is none.
    """
    for version in _LLVM_VERSIONS:
        folders = [None, *(folder.format(version=version) for folder in _LLVM_FOLDERS)]
        for folder in folders:
            suffix = f"-{version}" if folder is None else ""
            if shutil.which(f"llvm-mca{suffix}", path=folder) and (
                found := shutil.which(f"{name}{suffix}", path=folder)
            ):
                return found
    found = shutil.which(name)
    if found is None or shutil.which("llvm-mca") is None:
        raise InputError(f"there is no {name}; install LLVM 14 or newer (Debian: apt-get install llvm)")
    return found


@cache
def llvm_version() -> int:
    """The major version of the LLVM that `llvm_tool` finds."""
    found = re.search(r"LLVM version (\d+)", output_of([llvm_tool("llvm-mca"), "--version"]))
    return int(found.group(1)) if found else 0
