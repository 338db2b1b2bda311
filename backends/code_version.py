"""What generated code depends on beside the model: the versions of the compilers, and our own sources."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

__all__ = ["code_version"]

_PACKAGES = ("reconvene", "apache-tvm", "apache-tvm-ffi")


@cache
def code_version() -> str:
    """Changes with every version of reconvene and TVM, and whenever a source of this folder or of the schedules does."""
    folder = Path(__file__).parent
    sources = sorted([*folder.glob("*.py"), *(folder / "schedules").glob("*.py")])
    digest = hashlib.sha256(repr([_version(name) for name in _PACKAGES]).encode())
    for source in sources:
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown"
