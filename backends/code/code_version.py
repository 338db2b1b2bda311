"""What generated code depends on beside the model: the versions of the compilers, and our own sources."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["code_version"]

_PACKAGES = ("reconvene", "apache-tvm", "apache-tvm-ffi")


@cache
def code_version(folder: Path = Path(__file__).parents[1]) -> str:
    """Changes with every version of reconvene and TVM, and whenever a source of the backend, `folder`, does."""
    sources = sorted(folder.rglob("*.py"))
    digest = hashlib.sha256(repr([_version(name) for name in _PACKAGES]).encode())
    for source in sources:
        digest.update(f"\0{source.relative_to(folder).as_posix()}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
