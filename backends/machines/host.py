"""This machine, as LLVM and the operating system describe it."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import ReconveneError
from ...frontend.base.files import read_text, write_text
from ...frontend.base.json_text import parse_json
from .architectures import architecture_of

__all__ = ["has_features", "host_fields", "remembered_host"]


@cache
def host_fields() -> dict[str, Any]:
    """What the fields of a target for this machine are, by name."""
    from tvm.target import codegen  # Which takes seconds; most of this folder does without.

    triple, cpu = str(codegen.llvm_get_system_triple()), str(codegen.llvm_get_system_cpu())
    architecture = architecture_of(triple)
    lanes, registers = _vectors(triple, cpu)
    halves = lanes == 16 and architecture is not None and cpu in architecture.halving
    return {
        "name": "host",
        "description": f"This machine ({cpu})",
        "triple": triple,
        "cpu": cpu,
        "features": (),
        "float_abi": "hard" if triple.startswith("armv") else None,
        "lanes": lanes,
        "registers": registers,
        "cores": os.cpu_count() or 1,
        "channel_multiple": lanes // 2 if halves else lanes,
        "l1_bytes": _cache_bytes(1) or 32768,
        "l2_bytes": _cache_bytes(2) or 262144,
        "link": ("g++",) if platform.system() == "Linux" else ("c++",),
    }


def has_features(attribute: str, target: Mapping[str, Any]) -> bool:
    """Whether the core of a target, as TVM takes it, has what LLVM calls `attribute`."""
    import tvm
    from tvm.target import codegen

    return bool(codegen.llvm_cpu_has_features(attribute, tvm.target.Target(dict(target))))


def remembered_host() -> dict[str, Any]:
    """`host_fields` as they were found once on this machine, which the cache folder keeps; to be told, not to compile for."""
    try:
        path = cache_folder() / f"host-{_identity()}.json"
    except ReconveneError:
        return host_fields()
    with suppress(OSError, ValueError):
        kept = parse_json(read_text(path))
        # Types as they are, so that a file of somebody else's is no surprise in a table.
        if isinstance(kept, dict) and {name: _like(value) for name, value in kept.items()} == _FORM:
            return {**kept, "features": tuple(kept["features"]), "link": tuple(kept["link"])}
    found = host_fields()
    with suppress(OSError, ReconveneError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(found, indent=1) + "\n")
    return found


_FORM = {
    "name": "text", "description": "text", "triple": "text", "cpu": "text", "features": "list", "float_abi": "text",
    "lanes": "number", "registers": "number", "cores": "number", "channel_multiple": "number", "l1_bytes": "number",
    "l2_bytes": "number", "link": "list",
}  # fmt: skip
"""What a kept host has."""


def _like(value: object) -> str:
    if isinstance(value, list):
        return "list" if all(isinstance(entry, str) for entry in value) else "?"
    return "text" if value is None or isinstance(value, str) else "number" if type(value) is int else "?"


def _identity() -> str:
    """Of this machine, as far as its fields depend on it."""
    core = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        lines = text.partition("\n\n")[0].splitlines()
        core = "\n".join(line for line in lines if "mhz" not in line.lower() and "bogomips" not in line.lower())
    said = (platform.system(), platform.machine(), os.cpu_count(), core, metadata.version("apache-tvm"))
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def _vectors(triple: str, cpu: str) -> tuple[int, int]:
    """Lanes and registers of the widest vectors."""
    architecture = architecture_of(triple)
    if architecture is None:
        return 4, 16
    target = {"kind": "llvm", "mtriple": triple, "mcpu": cpu}
    for attribute, lanes, registers in architecture.wider_vectors:
        if has_features(attribute, target):
            return lanes, registers
    return architecture.vectors


def _cache_bytes(level: int) -> int | None:
    """Size of core 0's data cache of `level`, where Linux tells it."""
    units = {"K": 1024, "M": 1024**2}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            found, kind, size = ((entry / n).read_text().strip() for n in ("level", "type", "size"))
        except OSError:
            continue
        if found == str(level) and kind != "Instruction" and size[-1:] in units:
            return int(size[:-1]) * units[size[-1]]
    return None
