"""Kernels and the bytecode that calls them, compiled: without weights, so small, and the same for all weights."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
import tvm_ffi
from tvm import IRModule

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import InputError, ReconveneError
from ...frontend.base.file_cache import FileCache
from ..lowering.calls import finish
from ..machines.linkers import find_linker, link_shared
from ..machines.targets import Target
from .code_version import code_version

__all__ = ["LIMIT_VARIABLE", "Library", "build_library", "libraries", "load_library"]

LIMIT_VARIABLE = "RECONVENE_CACHE_BYTES"
"""Names how much room the compiled libraries may take; 0 keeps none."""

_LIMIT = 1 << 30
_SHARED = "model.so"
_ROOM = 16 << 20
"""Bytes that the disk must have before LLVM writes; far more than any model's code."""


@dataclass(frozen=True, eq=False)
class Library:
    """Compiled code.

    Attributes:
        module: what TVM's virtual machine runs; None for another machine's code that came out of the cache.
    """

    module: Any
    _objects: Mapping[str, bytes] | None = field(default=None, repr=False)

    @property
    def objects(self) -> Mapping[str, bytes]:
        """Object files by name, for a linker. Raises InputError if the disk is full."""
        return _emitted(self.module) if self._objects is None else self._objects


def build_library(module: IRModule, llvm: tvm.target.Target, target: Target, *, cached: bool = True) -> Library:
    """Compiles a lowered module, or finds it compiled in the user's cache folder.

    The key is all of the module and the target, `code_version`, and nothing else: weights are no part of the module.
    """
    cache = libraries() if cached else None
    key = "" if cache is None else _key(module, target)
    found = None if cache is None else _recalled(cache, key, target)
    if found is not None:
        return found
    executable = tvm.compile(module, target=llvm, relax_pipeline=finish())
    if cache is None:
        return Library(executable)
    try:
        return _kept(cache, key, executable, target)
    except (OSError, ReconveneError):
        # Without a linker or room on the disk, this process can still run what it compiled.
        return Library(executable)


def libraries() -> FileCache | None:
    """The cache of compiled libraries; None if it is switched off.

    Raises:
        InputError: its limit is no number.
    """
    named = os.environ.get(LIMIT_VARIABLE)
    if named is not None and not named.isdecimal():
        raise InputError(f"{LIMIT_VARIABLE} is '{named}'; give a number of bytes, or 0 to keep nothing")
    limit = _LIMIT if named is None else int(named)
    return FileCache(cache_folder() / "libraries", limit) if limit else None


def load_library(path: Path) -> Any:
    """TVM's module in a shared library; it is unloaded with the last reference to it."""
    # Links are left to the loader: what they lead to may have no name of its own.
    return tvm_ffi.load_module(str(path.absolute()), keep_module_alive=False)


def _key(module: IRModule, target: Target) -> str:
    words = (code_version(), repr(target), tvm.ir.save_json(module))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]


def _recalled(cache: FileCache, key: str, target: Target) -> Library | None:
    files = cache.get(key)
    if files is None or (target.runs_here and _SHARED not in files):
        return None
    objects = {name: contents for name, contents in files.items() if name != _SHARED}
    if not target.runs_here:
        return Library(None, objects)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            # A file of its own, since libraries loaded from one file share their variables.
            path = Path(temporary) / _SHARED
            path.write_bytes(files[_SHARED])
            return Library(load_library(path), objects)
    except (OSError, RuntimeError):
        cache.drop(key)
        return None


def _kept(cache: FileCache, key: str, executable: Any, target: Target) -> Library:
    objects = _emitted(executable)
    if not target.runs_here:
        cache.put(key, objects)
        return Library(executable, objects)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shared = folder / _SHARED
        link_shared(find_linker(target), shared, _written(objects, folder))
        cache.put(key, {**objects, _SHARED: shared.read_bytes()})
        return Library(load_library(shared), objects)


def _written(objects: Mapping[str, bytes], folder: Path) -> list[Path]:
    paths = [folder / name for name in sorted(objects)]
    for path in paths:
        path.write_bytes(objects[path.name])
    return paths


def _emitted(executable: Any) -> dict[str, bytes]:
    """The object files of TVM's executable."""
    _check_room(Path(tempfile.gettempdir()))
    found: dict[str, bytes] = {}

    def collect(_: str, files: Sequence[str], **__: Any) -> None:
        found.update({Path(file).name: Path(file).read_bytes() for file in files})

    executable.export_library("objects", fcompile=collect)
    return found


def _check_room(place: Path) -> None:
    """Raises InputError if the disk is too full: LLVM ends the process when it cannot write."""
    free = shutil.disk_usage(place).free
    if free < _ROOM:
        raise InputError(
            f"no space left in '{place}': the model's objects need {_ROOM >> 20} MiB and there are {free >> 20};"
            " make room, or set TMPDIR to another folder"
        )
