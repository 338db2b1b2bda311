"""The machines models are compiled for: presets, the host, and a user's own file."""

from __future__ import annotations

import difflib
import os
import platform
import re
import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import tvm
from tvm.target import codegen

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text
from ...frontend.base.json_text import shortened
from ..kernels.tiles import Machine

__all__ = ["Target", "find_target", "target_from", "targets"]


_NAME = re.compile(r"[^\W.][\w .+@()-]{0,99}")
_TRIPLE = re.compile(r"[a-z0-9_.]{1,40}(-(?!windows)[A-Za-z0-9_.]{1,40}){2,3}", re.ASCII)
_ARCHITECTURE = re.compile(r"(x86_64|aarch64|arm64|arm|armv\w+|thumbv\w+)-", re.ASCII)
_FEATURE = re.compile(r"[+-][a-z0-9][a-z0-9_.-]{0,60}", re.ASCII)
_MOST_TEXT = 16 << 10
"""Characters of a target file. Python's reader takes the square of its time for keys of many parts."""

_IN_ORDER = frozenset(
    f"cortex-{core}"
    for core in ("a5", "a7", "a34", "a35", "a53", "a55", "a65", "a510", "a520", "m4", "m7", "m33", "m55")
) | {"generic"}
"""Cores that start instructions in the order of the code; code for any ARM core is made for the least of them."""


_HALVES = frozenset({"znver4"})
"""Cores that carry an instruction on 512 bits out in two halves."""

_CLOCK_MHZ = 1500
"""Of ARM machines that do not say: of a small board."""

_ARM = ("+use-misched", "-slowfpvfmx", "-vmlx-hazards")
"""For 32-bit cores: LLVM's scheduler that counts registers, and fused multiply-adds. LLVM avoids these on some cores, since
a sum of them waits for itself; ours are many sums at once.
"""


@dataclass(frozen=True)
class Target:
    """A machine. `targets.toml` explains the fields; sizes are bytes, `lanes` counts float32 elements."""

    name: str
    description: str
    triple: str
    cpu: str
    features: tuple[str, ...]
    float_abi: str | None
    lanes: int
    registers: int
    cores: int
    channel_multiple: int
    l1_bytes: int
    l2_bytes: int
    link: tuple[str, ...]
    clock_mhz: int | None = None
    qemu_cpu: str = ""
    mca_cpu: str = ""
    qemu_machine: str = ""
    l1_ways: int = 4
    last_cache_bytes: int | None = None
    last_cache_ways: int = 16
    memory_mb_s: int = 4000

    def llvm(self) -> dict[str, Any]:
        """The target as TVM takes it."""
        target: dict[str, Any] = {
            "kind": "llvm",
            "mtriple": _normalized(self.triple),
            "mcpu": self.cpu,
            "num-cores": self.cores,
        }
        features = [*self.features, *(_ARM if self.architecture == "arm" and not self.bare else ())]
        if features:
            target["mattr"] = features
        if self.float_abi is not None:
            # The triple's "hf" alone is ignored by LLVM here, and the object would not link.
            target["mfloat-abi"] = self.float_abi
        if self.bare:
            # Else TVM takes it for a machine with vectors, and says so on stderr.
            target["vector-width"] = 32 * self.lanes
        return target

    @property
    def architecture(self) -> str:
        """``x86_64``, ``aarch64`` or ``arm``."""
        first = self.triple.split("-")[0]
        return "arm" if first.startswith(("armv", "thumb")) else first

    @property
    def bare(self) -> bool:
        """Whether the machine has no operating system."""
        return "-none-" in self.triple

    @property
    def runs_here(self) -> bool:
        """Whether this process can run the code: the same architecture, and no wider vectors."""
        here = _host()
        return self.architecture == here.architecture and self.lanes <= here.lanes

    @property
    def machine(self) -> Machine:
        """What the schedules need to know.

        On ARM, LLVM loads inputs ahead into registers of their own: a tile that fills all of them spills. 32-bit
        instructions for fused multiply-adds take no lane; it has to be spread over a register before, which LLVM does
        ahead too.
        """
        if self.architecture == "x86_64":
            halves = _halves(self.lanes, self.cpu)
            return Machine(self.lanes, self.registers, self.l2_bytes, self.cores, 6.0, halves=halves)
        stream = self.memory_mb_s / (self.clock_mhz or _CLOCK_MHZ)
        machine = Machine(self.lanes, self.registers, self.l2_bytes, self.cores, stream)
        machine = replace(machine, by_lane=True, in_order=self.cpu in _IN_ORDER, keeps_nans=self.lanes > 1)
        if self.architecture == "arm":
            return replace(machine, registers=self.registers - 1, pixel_registers=3)
        return replace(machine, registers=self.registers - 3, pixel_registers=1)


def find_target(name_or_target: str | Target) -> Target:
    """The target of that name, the one described in a ``.toml`` file, or the one given.

    Raises:
        InputError: there is no such name or file, or the file lacks a field.
    """
    if isinstance(name_or_target, Target):
        return name_or_target
    if name_or_target.endswith(".toml"):
        return _from_file(Path(name_or_target))
    known = {target.name: target for target in targets()}
    if name_or_target not in known:
        close = difflib.get_close_matches(name_or_target, known, n=3)
        choices = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(known)}"
        raise InputError(f"unknown target '{name_or_target}'; {choices}")
    return known[name_or_target]


@cache
def targets() -> tuple[Target, ...]:
    """The host and all presets."""
    text = resources.files(__package__).joinpath("targets.toml").read_text(encoding="utf-8")
    presets = (target_from({"name": name, **values}, "targets.toml") for name, values in tomllib.loads(text).items())
    return (_host(), *presets)


def _from_file(path: Path) -> Target:
    try:
        text = read_text(path)
        if len(text) > _MOST_TEXT:
            raise InputError(f"target file '{path}' has {len(text)} characters; a target takes {_MOST_TEXT} at most")
        values = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"cannot read target file '{path}': {reason}; give a readable .toml file") from None
    except RecursionError:
        raise InputError(f"target file '{path}' is nested too deeply") from None
    except ValueError as error:  # Of TOML's grammar, or Python's of numbers.
        if isinstance(error, InputError):
            raise
        raise InputError(f"target file '{path}' is not TOML: {error}") from None
    target = target_from({"name": path.stem, **values}, str(path))
    if target.name == "host":
        raise InputError(f"target file '{path}': 'host' is the name of this machine; choose another name")
    _check_cpu(target, path)
    return target


_KINDS: dict[str, type] = {
    "name": str,
    "description": str,
    "triple": str,
    "cpu": str,
    "features": list,
    "float_abi": str,
    "link": list,
    "qemu_cpu": str,
    "mca_cpu": str,
    "qemu_machine": str,
}


_MOST = {
    "lanes": 64,
    "registers": 256,
    "cores": 4096,
    "channel_multiple": 1 << 16,
    "clock_mhz": 1 << 20,
    "l1_ways": 1 << 10,
    "last_cache_ways": 1 << 10,
    "memory_mb_s": 1 << 30,
}
"""Of fields that are numbers: far more than any machine has. Schedules are looked for among all that fit."""

_MOST_BYTES = 1 << 40

_OPTIONAL: dict[str, Any] = {
    "description": "",
    "features": [],
    "float_abi": None,
    "link": [],
    "clock_mhz": None,
    "qemu_cpu": "",
    "mca_cpu": "",
    "qemu_machine": "",
    "l1_ways": 4,
    "last_cache_bytes": None,
    "last_cache_ways": 16,
    "memory_mb_s": 4000,
}


def target_from(values: dict[str, Any], where: str) -> Target:
    """Checks `values` field by field, since they may be a user's."""
    complete = {**_OPTIONAL, **values}
    names = [field.name for field in fields(Target)]
    missing, unknown = [n for n in names if n not in complete], [n for n in complete if n not in names]
    if missing or unknown:
        problem = f"lacks '{missing[0]}'" if missing else f"has an unknown field '{unknown[0]}'"
        raise InputError(f"target '{complete.get('name')}' in {where} {problem}; the fields are {', '.join(names)}")
    for name in names:
        wanted = _wanted(name, complete[name])
        if wanted:
            raise InputError(f"target '{complete.get('name')}' in {where}: '{name}' must be {wanted}")
    if not _TRIPLE.fullmatch(complete["triple"]) or not _ARCHITECTURE.match(complete["triple"]):
        raise InputError(
            f"target '{complete.get('name')}' in {where}: code is made for x86_64, aarch64 and arm, on Linux, macOS or without"
            f" a system, not for the triple {shortened(complete['triple'])}"
        )
    if complete["registers"] < 8 or complete["lanes"] & (complete["lanes"] - 1):
        raise InputError(
            f"target '{complete.get('name')}' in {where}: registers must be 8 or more and lanes a power of two"
        )
    return Target(**{**complete, "features": tuple(complete["features"]), "link": tuple(complete["link"])})


def _check_cpu(target: Target, path: Path) -> None:
    """Raises InputError for a core that LLVM does not know; it would take another one, and say so on stderr."""
    known = list(
        codegen.llvm_get_cpu_archlist(tvm.target.Target({"kind": "llvm", "mtriple": _normalized(target.triple)}))
    )
    if target.cpu not in known:
        close = difflib.get_close_matches(target.cpu[:60], known, n=3)
        choices = f"did you mean {' or '.join(close)}?" if close else "generic is the least of them"
        raise InputError(
            f"target '{target.name}' in {path}: LLVM knows no cpu {shortened(target.cpu)} of {target.triple}; {choices}"
        )


def _wanted(name: str, value: Any) -> str | None:
    """What a field must be, if `value` is not that."""
    kind = _KINDS.get(name)
    if value is None and name in _OPTIONAL and _OPTIONAL[name] is None:
        return None
    if kind is None:
        most = _MOST.get(name, _MOST_BYTES)
        good = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most
        return None if good else f"a positive whole number up to {most}, got {shortened(value)}"
    if name == "name" and isinstance(value, str) and not _NAME.fullmatch(value):
        return f"a name that a file can have, got {shortened(value)}"
    if name == "features" and isinstance(value, list | tuple):
        wrong = [entry for entry in value if not isinstance(entry, str) or not _FEATURE.fullmatch(entry)]
        if wrong:
            return f'a list of words such as "+neon", got {shortened(wrong[0])}'
    texts = not isinstance(value, list) or all(isinstance(entry, str) for entry in value)
    return None if isinstance(value, kind) and texts else f"a {kind.__name__}, got {shortened(value)}"


def _normalized(triple: str) -> str:
    """The triple with all four parts.

    LLVM takes the three that compilers are named by for architecture, vendor and system. It then knows no environment,
    and on 32-bit ARM calls helpers of the C library with arguments in the wrong registers.
    """
    parts = triple.split("-")
    return "-".join([parts[0], "unknown", *parts[1:]]) if len(parts) == 3 else triple


@cache
def _host() -> Target:
    """This machine, as LLVM and the operating system describe it."""
    triple, cpu = str(codegen.llvm_get_system_triple()), str(codegen.llvm_get_system_cpu())
    lanes, registers = _vectors(tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu}), triple)
    return Target(
        name="host",
        description=f"This machine ({cpu})",
        triple=triple,
        cpu=cpu,
        features=(),
        float_abi="hard" if triple.startswith("armv") else None,
        lanes=lanes,
        registers=registers,
        cores=os.cpu_count() or 1,
        channel_multiple=lanes // 2 if _halves(lanes, cpu) else lanes,
        l1_bytes=_cache_bytes(1) or 32768,
        l2_bytes=_cache_bytes(2) or 262144,
        link=("g++",) if platform.system() == "Linux" else ("c++",),
    )


def _halves(lanes: int, cpu: str) -> bool:
    """Whether half a vector takes half the time."""
    return lanes == 16 and cpu in _HALVES


def _vectors(target: tvm.target.Target, triple: str) -> tuple[int, int]:
    """Lanes and registers of the widest vectors."""
    if not triple.startswith("x86_64"):
        return (4, 32) if triple.startswith(("aarch64", "arm64")) else (4, 16)
    if codegen.llvm_cpu_has_features("avx512f", target):
        return 16, 32
    return (8, 16) if codegen.llvm_cpu_has_features("avx2", target) else (4, 16)


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
