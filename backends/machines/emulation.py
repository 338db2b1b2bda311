"""QEMU in place of a board, with the board's core. It needs no root, no container and no kernel set-up.

For boards with Linux it is user mode; for processors without an operating system, a whole board of QEMU's.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ...frontend.base.errors import InputError
from .targets import Target

__all__ = ["Emulator", "find_emulator"]


@dataclass(frozen=True)
class Emulator:
    """How a program for another machine is run here.

    Attributes:
        command: what stands before the program.
        cpu: the core that is emulated, as QEMU calls it.
    """

    command: tuple[str, ...]
    cpu: str


def find_emulator(target: Target, *, libraries: bool = False) -> Emulator:
    """QEMU for programs of `target`, with its core.

    Args:
        libraries: the program uses the target's C and C++ libraries, so they are needed here too.

    Raises:
        InputError: QEMU, or with `libraries` the target's C library, is not installed.
    """
    if target.bare:
        return _whole_machine(target)
    name = target.architecture
    found = next((n for n in (f"qemu-{name}", f"qemu-{name}-static") if shutil.which(n)), None)
    if found is None:
        raise InputError(
            f"running programs for '{target.name}' here needs QEMU (qemu-{name}); install it: apt-get install qemu-user"
        )
    cpu = target.qemu_cpu or "max"
    return Emulator((found, "-cpu", cpu, *(_library_options(target) if libraries else ())), cpu)


def _whole_machine(target: Target) -> Emulator:
    """QEMU for a processor without an operating system: a board with that core, whose host reads and writes files."""
    if not target.qemu_machine:
        raise InputError(
            f"'{target.name}' names no board of QEMU's; add its qemu_machine, or link the sources into one"
        )
    if shutil.which("qemu-system-arm") is None:
        raise InputError(
            f"running programs for '{target.name}' here needs qemu-system-arm; install it: apt-get install qemu-system-arm"
        )
    cpu = target.qemu_cpu or target.cpu
    machine = ("qemu-system-arm", "-M", target.qemu_machine, "-cpu", cpu)
    quiet = ("-nographic", "-monitor", "none", "-serial", "none", "-semihosting-config", "enable=on,target=native")
    return Emulator((*machine, *quiet, "-kernel"), cpu)


def _library_options(target: Target) -> tuple[str, ...]:
    folder = Path("/usr") / target.isa.library_folder
    if target.runs_here:
        return ()
    if not (folder / "lib").is_dir():
        raise InputError(
            f"this bundle uses the C++ library of its machine, which is not in {folder}; install it: apt-get install"
            f" {target.isa.library_package}, or compile with --runtime static"
        )
    return ("-L", str(folder))
