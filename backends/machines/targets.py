"""The machines models are compiled for: presets, the host, and a user's own file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ...frontend.base.errors import InputError
from ..dtypes import DTYPES
from ..kernels.tiles import Machine
from .architectures import Architecture, architecture_of, llvm_triple, unsupported
from .host import has_features, host_fields, remembered_host
from .target_fields import checked_fields, fields_of_file

__all__ = ["HOST", "Target", "check_name", "find_target", "presets", "target_from", "targets", "told_targets"]

HOST = "host"
"""The name of this machine."""

_ISSUES = 3.0
"""Instructions that a core begins in a cycle, by LLVM's model of the Neoverse N1: beside two products few are left."""
_CLOCK_MHZ = 1500
"""Of ARM machines that do not say: of a small board."""


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
        """The target as TVM takes it. Raises InputError as `isa`."""
        target: dict[str, Any] = {
            "kind": "llvm",
            "mtriple": llvm_triple(self.triple),
            "mcpu": self.cpu,
            "num-cores": self.cores,
        }
        features = [*self.features, *(() if self.bare else self.isa.attributes)]
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
    def isa(self) -> Architecture:
        """Its instruction set. Raises InputError for one that code is not made for."""
        found = architecture_of(self.triple)
        if found is None:
            raise InputError(f"target '{self.name}': {unsupported(self.triple)}")
        return found

    @property
    def architecture(self) -> str:
        """The name of its instruction set: ``x86_64``, ``aarch64`` or ``arm``. Raises InputError as `isa`."""
        return self.isa.name

    @property
    def bare(self) -> bool:
        """Whether the machine has no operating system."""
        return "-none-" in self.triple

    @property
    def has_half_floats(self) -> bool:
        """Whether its vectors are computed with in float16. Raises InputError as `isa`."""
        attribute = self.isa.half_floats
        if attribute is None or self.bare:
            return False
        return has_features(attribute, self.llvm())

    @property
    def dot(self) -> str:
        """How its products of codes are added, as in `Machine.dot`: by LLVM's word for the core, since of an instruction that
        a core lacks it makes no error, but ends the process. Raises InputError as `isa`.
        """
        target = self.llvm()
        for dot, lanes, attributes in self.isa.dots:
            if lanes == self.lanes and all(has_features(name, target) for name in attributes):
                return dot
        return ""

    @property
    def runs_here(self) -> bool:
        """Whether this process can run the code: the same architecture, and no wider vectors."""
        here = host_fields()
        same = architecture_of(self.triple) == architecture_of(here["triple"])
        return same and self.lanes <= int(here["lanes"])

    @property
    def machine(self) -> Machine:
        """What the schedules need to know. Raises InputError as `isa`."""
        isa = self.isa
        return Machine(
            self.lanes * DTYPES["float32"].bytes,
            self.registers - isa.reserved_registers,
            self.l2_bytes,
            self.cores,
            isa.stream_bytes or self.memory_mb_s / (self.clock_mhz or _CLOCK_MHZ),
            isa.pixel_registers,
            by_lane=isa.by_lane,
            in_order=self.cpu in isa.in_order,
            halves=self.lanes == 16 and self.cpu in isa.halving,
            rate=2.0 if self.lanes in isa.paired or self.cpu in isa.doubled else 1.0,
            issues=_ISSUES if self.cpu in isa.doubled else None,
            keeps_nans=isa.keeps_nans and self.lanes > 1,
            l1_bytes=self.l1_bytes,
            index=isa.index,
            dot=self.dot,
        )


_NAMES = tuple(entry.name for entry in fields(Target))


def find_target(name_or_target: str | Target) -> Target:
    """The target of that name, the one described in a ``.toml`` file, or the one given.

    Raises:
        InputError: there is no such name or file, or the file lacks a field.
    """
    if isinstance(name_or_target, Target):
        return name_or_target
    if name_or_target.endswith(".toml"):
        return Target(**fields_of_file(Path(name_or_target), _NAMES))
    check_name(name_or_target)
    if name_or_target == HOST:
        return targets()[0]
    return next(preset for preset in presets() if preset.name == name_or_target)


def check_name(name: str) -> None:
    """Raises InputError, naming those there are, unless a target is called so."""
    known = [HOST, *(preset.name for preset in presets())]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        choices = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(known)}"
        raise InputError(f"unknown target '{name}'; {choices}")


@cache
def targets() -> tuple[Target, ...]:
    """The host and all presets."""
    return (Target(**host_fields()), *presets())


def told_targets() -> tuple[Target, ...]:
    """The same to be read by a person: the host as it was found once, which takes no seconds."""
    return (Target(**remembered_host()), *presets())


@cache
def presets() -> tuple[Target, ...]:
    """All machines but the host. Neither torch nor TVM is imported for them."""
    text = resources.files(__package__).joinpath("targets.toml").read_text(encoding="utf-8")
    return tuple(target_from({"name": name, **values}, "targets.toml") for name, values in tomllib.loads(text).items())


def target_from(values: Mapping[str, Any], where: str) -> Target:
    """The target with these fields; `where` says in messages where they are from.

    Raises:
        InputError: a field is missing, unknown, or not what it must be.
    """
    return Target(**checked_fields(values, where, _NAMES))
