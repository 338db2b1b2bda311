"""This machine, as LLVM and the operating system describe it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import tvm
from tvm.target import codegen

from .architectures import architecture_of

__all__ = ["host_fields"]


@cache
def host_fields() -> dict[str, Any]:
    """What the fields of a target for this machine are, by name."""
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


def _vectors(triple: str, cpu: str) -> tuple[int, int]:
    """Lanes and registers of the widest vectors."""
    architecture = architecture_of(triple)
    if architecture is None:
        return 4, 16
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    for attribute, lanes, registers in architecture.wider_vectors:
        if codegen.llvm_cpu_has_features(attribute, target):
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
