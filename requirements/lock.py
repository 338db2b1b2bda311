"""Writes the lists beside this file: each package of `constraints.txt` and the checksums of its files; and the list of
what is fetched for boards.

``make hashes`` runs it with a Python that has ``uv`` and ``packaging``. It asks the registry for the checksums, so a file
that is exchanged there later is refused by ``pip install --require-hashes``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.markers import Marker

FOLDER = Path(__file__).resolve().parent
TOP = FOLDER.parent
WHEELS = TOP / "backends" / "bundles" / "runtime" / "wheels.txt"

PYTHON = "3.11.5"
"""The oldest that all of it runs on: what builds the documentation asks for it."""

MACHINES = [
    {"sys_platform": system, "platform_system": system.capitalize(), "os_name": "posix", "platform_machine": machine}
    | {"python_version": python, "python_full_version": f"{python}.9"}
    | {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
    for python in ("3.11", "3.12", "3.13")
]

GPU = re.compile(r"(nvidia|cuda)-|triton$")
"""What only PyTorch's build for GPUs asks for."""

BESIDE = "torchvision\ntimm\n"
"""Installed beside what pyproject.toml names: see the Makefile."""

LISTS: dict[str, tuple[str, ...]] = {
    "environment": ("test", "demo"),
    "cross": ("cross",),
    "docs": ("docs",),
    "mutation": ("mutation",),
    "benchmarks": (),
}
"""The extras of pyproject.toml that each list is for, all of them where none is named; what lists before it have is left
out."""

TITLES = {
    "environment": "What the tests and the demo are run with, without torch.",
    "torch": "torch, the registry's builds: on Linux, they take what cuda.txt lists. See torch-cpu.txt.",
    "cuda": "What the registry's torch asks for on Linux.",
    "cross": "A compiler for boards.",
    "docs": "What the documentation is made with.",
    "mutation": "What mutants of the code are made and tried with.",
    "benchmarks": "What benchmarks compare with.",
}

Packages = dict[str, tuple[str, ...]]
"""Lines of each requirement by what its first says: the version, and on which machines."""


def compiled(extras: Sequence[str]) -> Packages:
    """Everything that `extras` need, as uv finds it, where any of `MACHINES` takes it."""
    options = "--no-config --quiet --universal --generate-hashes --no-annotate --no-header".split()
    chosen = [word for extra in extras for word in ("--extra", extra)] or ["--all-extras"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options, "--python-version", PYTHON, *chosen]
    command += ["--constraint", "constraints.txt", "pyproject.toml", "-"]
    text = subprocess.run(command, cwd=TOP, input=BESIDE, text=True, check=True, stdout=subprocess.PIPE).stdout
    blocks = [block.split(" \\\n") for block in re.split(r"\n(?=\S)", text.rstrip("\n"))]
    found = {wanted(first): tuple(hashes) for first, *hashes in blocks}
    return {first: hashes for first, hashes in found.items() if first is not None}


def wanted(first: str) -> str | None:
    """A requirement, without its condition where all of `MACHINES` meet it; None where none does."""
    requirement, _, condition = first.partition(" ; ")
    met = [not condition or Marker(condition).evaluate(machine) for machine in MACHINES]
    return requirement if all(met) else first if any(met) else None


def divided() -> dict[str, Packages]:
    """The requirements of each list."""
    files: dict[str, Packages] = {name: {} for name in TITLES}
    seen: set[str] = set()
    for name, extras in LISTS.items():
        for first, hashes in compiled(extras).items():
            if first not in seen:
                seen.add(first)
                files[own_list(first) or name][first] = hashes
    return files


def own_list(first: str) -> str | None:
    """The list that is for a requirement, whoever asks for it."""
    name = first.split("==")[0]
    return "torch" if name == "torch" else "cuda" if GPU.match(name) else None


def text_of(title: str, packages: Packages) -> str:
    head = f"# {title}\n# Made by `make hashes` from pyproject.toml and constraints.txt; do not edit.\n"
    return head + "\n".join(" \\\n".join((first, *hashes)) for first, hashes in packages.items()) + "\n"


def main() -> None:
    files = divided()
    for name, packages in files.items():
        (FOLDER / f"{name}.txt").write_text(text_of(TITLES[name], packages), encoding="utf-8")
    runtime = {first: hashes for first, hashes in files["environment"].items() if first.startswith("apache-tvm")}
    WHEELS.write_text(text_of("TVM's wheels, which bundles for boards are made of.", runtime), encoding="utf-8")


if __name__ == "__main__":
    main()
