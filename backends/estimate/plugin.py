"""Compiles the QEMU plugins of `native/`, once for each version of their source."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from importlib import resources
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.files import replacing
from .tools import cache_folder, compiler

__all__ = ["native_source", "plugin"]

_COMMON = ("mapped_files.h", "qemu_plugin.h")
_SOURCES = {name: (f"{name}.c", *_COMMON) for name in ("blocks", "caches")}
_FLAGS = ("-O2", "-fPIC", "-shared", "-fvisibility=hidden")


def native_source(name: str) -> Path:
    """A file of `native/`."""
    return Path(str(resources.files(__package__).joinpath("native", name)))


@cache
def plugin(name: str) -> Path:
    """The compiled plugin `name`: ``blocks`` or ``caches``.

    Raises:
        InputError: there is no C compiler, or it fails, or the cache folder cannot be written.
    """
    texts = [native_source(source).read_bytes() for source in _SOURCES[name]]
    digest = hashlib.sha256(b"\0".join([*texts, " ".join(_FLAGS).encode()])).hexdigest()[:16]
    library = cache_folder() / f"{name}-{digest}.so"
    if not library.is_file():
        with replacing(library) as temporary:
            command = [compiler(), *_FLAGS, "-o", str(temporary), str(native_source(_SOURCES[name][0]))]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                lines = result.stderr.strip().splitlines() or ["no message"]
                raise InputError(f"'{command[0]}' cannot compile QEMU's plugin '{name}': {lines[-1]}")
    return library
