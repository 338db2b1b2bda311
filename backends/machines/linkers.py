"""Finds a compiler that makes programs and libraries for a target, and runs it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...frontend.base.errors import InputError
from ...frontend.base.extras import install_command
from .targets import Target

__all__ = ["Linker", "Purpose", "find_linker", "invoke", "link_shared"]

Purpose = Literal["library", "program", "static"]
"""A shared library without the C library; a program against the machine's own; one that brings its own."""


@dataclass(frozen=True)
class Linker:
    """A C++ compiler driver for a target.

    Attributes:
        command: the call, to which files and options are added.
        kind: whose options it takes: ``gcc``, ``clang``, or ``zig`` (the package ``ziglang``).
        found: how it was found, for a person.
    """

    command: tuple[str, ...]
    kind: Literal["gcc", "clang", "zig"]
    found: str


_BARE_PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi"


def find_linker(target: Target, purpose: Purpose = "library", *, cxx: bool = False) -> Linker:
    """The target's own link command, else clang with lld (libraries only: it brings no C library), else the
    package ``ziglang``. With `cxx`, what is linked uses C++'s library, which ziglang compiles first: that takes a minute.

    Raises:
        InputError: there is none of them; the message says what to install.
    """
    command = target.link
    if command and shutil.which(command[0]) is not None:
        kind: Literal["gcc", "clang"] = "clang" if "clang" in Path(command[0]).name else "gcc"
        return Linker(command, kind, f"'{command[0]}' on the path")
    if purpose == "library" and shutil.which("clang++") and shutil.which("ld.lld"):
        call: tuple[str, ...] = ("clang++", f"--target={target.triple}", "-fuse-ld=lld", "-nostdlib")
        return Linker(call, "clang", "'clang++' and 'ld.lld' on the path")
    if not target.bare and importlib.util.find_spec("ziglang") is not None:
        dynamic, static = target.isa.zig
        triple = static if purpose == "static" else dynamic
        compiler = "c++" if cxx else "cc"
        zig = (sys.executable, "-m", "ziglang", compiler, "-target", triple, f"-mcpu={target.isa.zig_cpu}")
        return Linker(zig, "zig", "the Python package 'ziglang'")
    raise InputError(f"no compiler for '{target.name}' ({target.triple}) was found; install one: {_advice(target)}")


def link_shared(linker: Linker, output: Path, objects: Sequence[Path]) -> None:
    """Links a shared library. Raises InputError with the linker's last words if that fails."""
    invoke(linker, ["-shared", "-fPIC", "-o", str(output), *map(str, objects)], "link the model")


def invoke(linker: Linker, arguments: Sequence[str], what: str, folder: Path | None = None) -> None:
    """Calls the compiler, in `folder`. Raises InputError: ``cannot WHAT``, and the compiler's first error."""
    result = subprocess.run([*linker.command, *arguments], capture_output=True, text=True, check=False, cwd=folder)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        # The linker says why without the word; its caller says "error" without why.
        told = ("error", "No space", "undefined reference", "overflow", "will not fit")
        telling = [line for line in lines if any(word in line for word in told) and not line.startswith("collect2")]
        raise InputError(f"'{linker.command[0]}' cannot {what}: {(telling or lines)[0].strip()}")


def _advice(target: Target) -> str:
    if target.bare:
        return f"apt-get install {_BARE_PACKAGES}"
    return f"apt-get install {target.isa.compiler_package}, or without root: {install_command('cross')}"
