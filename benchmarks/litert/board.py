"""An emulated board whose Python has LiteRT: what its files say of its processor, and how programs run on it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconvene.backends.estimate.counting import Command
from reconvene.backends.machines.targets import Target
from reconvene.frontend.base.errors import InputError

__all__ = ["CORES", "Board", "board_for"]

_COMMON = "fp asimd evtstrm crc32 cpuid"
CORES = {
    "cortex-a53": (0xD03, _COMMON),
    "cortex-a72": (0xD08, _COMMON),
    "cortex-a76": (0xD0B, f"{_COMMON} aes pmull sha1 sha2 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"),
}
"""Part numbers of Arm's cores, and the features that Linux on the Raspberry Pi 3, 4 and 5 tells of: LiteRT chooses kernels by
them.
"""

_PROCESSOR = """processor\t: {index}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part:#x}
CPU revision\t: 3

"""


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        files: what its programs see in place of the files of this machine.
        site: the folder of Python packages: LiteRT and numpy.
    """

    cpu: str
    files: Path
    site: Path

    @property
    def schema(self) -> Path:
        """Of .tflite files, in Python."""
        return self.site / "ai_edge_litert" / "schema_py_generated.py"

    @property
    def engine(self) -> str:
        """LiteRT and its version."""
        (metadata,) = self.site.glob("ai_edge_litert-*.dist-info")
        return f"LiteRT {metadata.name.removesuffix('.dist-info').rpartition('-')[2]}"

    def python(self, arguments: Sequence[str]) -> Command:
        """The board's Python with `arguments`."""
        settings = {"PYTHONHOME": f"{self.files}/usr", "PYTHONPATH": str(self.site), "PYTHONHASHSEED": "0"}
        given = [word for key, value in settings.items() for word in ("-E", f"{key}={value}")]
        emulator = shutil.which("qemu-aarch64")
        if emulator is None:
            raise InputError("there is no qemu-aarch64; install it (Debian: apt-get install qemu-user)")
        program = (str(self.files / "usr" / "bin" / "python3.11"), *arguments)
        return Command((emulator, "-cpu", self.cpu, "-L", str(self.files), *given), program)


@contextlib.contextmanager
def board_for(target: Target, sysroot: Path) -> Iterator[Board]:
    """A board with the core of `target`. Its files are those of `sysroot`, made by ``sysroot.sh``, and what Linux tells of the
    processor: QEMU's programs would else read what the host's tells, and LiteRT ends with a segmentation fault.

    Raises:
        InputError: the core has no entry in `CORES`, or `sysroot` is none.
    """
    root, site = sysroot.resolve() / "root", sysroot.resolve() / "site"
    if not (root / "usr").is_dir() or not (site / "ai_edge_litert").is_dir():
        raise InputError(f"'{sysroot}' has no Python with LiteRT; make it: sh benchmarks/litert/sysroot.sh {sysroot}")
    if target.qemu_cpu not in CORES:
        raise InputError(f"'{target.name}' is no board that LiteRT was run for; known are {', '.join(CORES)}")
    with tempfile.TemporaryDirectory(prefix="arm-peers-") as folder:
        files = Path(folder)
        for entry in root.iterdir():
            (files / entry.name).symlink_to(entry)
        for name, text in processor_files(target).items():
            path = files / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="ascii")
        yield Board(target.qemu_cpu, files, site)


def processor_files(target: Target) -> dict[str, str]:
    """What Linux tells of the processor, as far as libraries read it to choose kernels and count threads."""
    part, features = CORES[target.qemu_cpu]
    cores = range(target.cores)
    every, mask = f"0-{target.cores - 1}\n", f"{(1 << target.cores) - 1:x}\n"
    told = {
        "proc/cpuinfo": "".join(_PROCESSOR.format(index=index, features=features, part=part) for index in cores),
        **dict.fromkeys([f"sys/devices/system/cpu/{name}" for name in ("present", "possible", "online")], every),
    }
    clock = f"{1000 * (target.clock_mhz or 1000)}\n"
    for index in cores:
        folder = f"sys/devices/system/cpu/cpu{index}"
        told |= {f"{folder}/cpufreq/cpuinfo_{end}_freq": clock for end in ("min", "max")}
        told |= {f"{folder}/topology/{name}_list": every for name in ("core_siblings", "package_cpus", "cluster_cpus")}
        told |= {f"{folder}/topology/{name}": mask for name in ("core_siblings", "package_cpus", "cluster_cpus")}
        told |= {f"{folder}/topology/{name}_list": f"{index}\n" for name in ("thread_siblings", "core_cpus")}
        told |= {f"{folder}/topology/{name}": f"{1 << index:x}\n" for name in ("thread_siblings", "core_cpus")}
        told |= {
            f"{folder}/topology/core_id": f"{index}\n",
            f"{folder}/topology/physical_package_id": "0\n",
            f"{folder}/regs/identification/midr_el1": f"{0x410F0003 | part << 4:#018x}\n",
        }
    return told
