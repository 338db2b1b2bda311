"""Tools that some checks need beside Python: what they are, whether they are here, and how to get them."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from attacks.servers import has_sanitisers

from reconvene.backends.bundles.runtime_wheels import wheel_runtime
from reconvene.backends.estimate.tools import llvm_tool, llvm_version
from reconvene.backends.machines.targets import find_target
from reconvene.frontend.base.errors import InputError

__all__ = ["INSTALL", "OPTIONAL", "missing", "needs"]

INSTALL = {
    "aarch64-linux-gnu-g++": "apt-get install g++-aarch64-linux-gnu",
    "arm-linux-gnueabihf-g++": "apt-get install g++-arm-linux-gnueabihf",
    "qemu-aarch64": "apt-get install qemu-user",
    "qemu-arm": "apt-get install qemu-user",
    "arm-none-eabi-g++": "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "apt-get install qemu-system-arm",
    "llvm-mca": "apt-get install llvm",
    "llvm-16": "apt-get install llvm-22, or any from 16 on",
    "llc-22": "apt-get install llvm-22",
    "wheels": "a network, for the board's wheels of TVM (once)",
    "ziglang": "pip install '.[cross]'",
    "sanitisers": "a g++ that has -fsanitize=address,undefined, as Debian's has",
}
"""By tool, the line that installs it. All are programs but ``wheels``, TVM's wheels for the board,
``llvm-16``, an llvm-mca with models of the Neoverse cores, ``llc-22``, LLVM's compiler of a version that reads
TVM's code, ``ziglang``, and ``sanitisers``, the libraries of the compiler's."""

OPTIONAL = {"arm-none-eabi-g++", "qemu-system-arm", "ziglang", "sanitisers", "llvm-16", "llc-22"}
"""Large downloads (112 MB for the two, 100 MB for the other), which `make tools` leaves out and `make all-tools` has, and what
not every compiler or distribution has: checks that need them are skipped by name wherever they are missing."""


def needs(*tools: str) -> Any:
    """A mark: the check needs `tools`, of `INSTALL`."""
    return pytest.mark.needs(*tools)


@cache
def missing(tool: str) -> bool:
    """Whether `tool` is not here."""
    if tool == "ziglang":
        return importlib.util.find_spec("ziglang") is None
    if tool == "sanitisers":
        with tempfile.TemporaryDirectory() as temporary:
            return not has_sanitisers(Path(temporary))
    if tool == "llvm-16":
        return missing("llvm-mca") or llvm_version() < 16
    if tool == "llc-22":  # It has to read what TVM's LLVM writes.
        return missing("llvm-mca") or llvm_version() < 22 or missing("llc")
    if tool not in ("wheels", "llvm-mca", "llc"):
        return shutil.which(tool) is None
    try:
        if tool == "wheels":
            wheel_runtime(find_target("generic-aarch64"))
        else:
            llvm_tool(tool)
    except InputError:
        return True
    return False
