"""A model's program for a processor without an operating system, for QEMU's board with that core.

It is what shows that the sources work there, and what they take: start code, memory map and the few calls to the
host are ours (``runtime/bare*``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...frontend.base.errors import InputError
from ..artifact import Artifact
from ..dtypes import DTYPES, tensor_bytes
from ..machines.linkers import Linker, invoke
from ..machines.object_files import Sizes, section_sizes
from .manifest import PROGRAM
from .program import own_source

__all__ = ["c_type", "write_bare_program"]

_FLAGS = "-O2 -Wall -Wextra -ffunction-sections -fdata-sections".split()


def write_bare_program(
    artifact: Artifact, folder: Path, linker: Linker, cpu_flags: Sequence[str], objects: Sequence[Path], work: Path
) -> Sizes | None:
    """Links ``run`` into `folder` for the QEMU board of the target, and gives the bytes that the model takes in it.

    None where there is no such board, or the model is too large for its memory.

    Raises:
        InputError: the compiler fails for another reason.
    """
    if not artifact.target.qemu_machine:
        return None
    for name in ("semihosting.h", "bare.ld"):
        own_source(name, work)
    (work / "bare_model.h").write_text(_model_header(artifact), encoding="utf-8")
    sources = [own_source(name, work) for name in ("bare_start.c", "bare_run.c")]
    # Of the C library only what kernels call: it asks nothing of a system.
    options = ["-nostdlib", f"-Wl,-T,{work / 'bare.ld'}", "-Wl,--gc-sections", f"-I{folder}", f"-I{work}"]
    compiled = ["-x", "c", *map(str, sources), "-x", "none", *map(str, objects)]
    output = folder / PROGRAM
    try:
        invoke(
            linker,
            [*_FLAGS, *cpu_flags, *options, *compiled, "-lm", "-lc", "-lgcc", "-o", str(output)],
            "link the program",
        )
    except InputError as error:
        if "overflow" in str(error) or "will not fit" in str(error):
            return None
        raise
    sizes = section_sizes(output)
    part = {name: sizes.get(f".model_{name}", 0) for name in ("code", "constants", "data", "zeros")}
    return Sizes(part["code"], part["constants"], part["data"], part["zeros"])


def c_type(dtype: str) -> str:
    """C's name of a dtype. Raises InputError where it has none."""
    found = DTYPES[dtype].c
    if found is None:
        raise InputError(f"C has no type for {dtype}; use --runtime static")
    return found


def _model_header(artifact: Artifact) -> str:
    """The model's arrays, and the call of it with them."""
    lines = ["#include <stddef.h>", '#include "reconvene_model.h"', "", "typedef struct {", "  void *data;"]
    lines += ["  size_t bytes;", "} array;", ""]
    names: list[str] = []
    for kind, specs in (("input", artifact.inputs), ("output", artifact.outputs)):
        for index, spec in enumerate(specs):
            names.append(f"{kind}{index}")
            size = max(1, math.prod(spec.shape))
            lines.append(f"static {c_type(spec.dtype)} {kind}{index}[{size}] RECONVENE_ALIGNED;")
        rows = ", ".join(
            f"{{{kind}{index}, {tensor_bytes(spec.shape, spec.dtype)}}}" for index, spec in enumerate(specs)
        )
        lines.append(f"static const array {kind}s[] = {{{rows or '{NULL, 0}'}}};")
        lines.append(f"enum {{ {kind.upper()}S = {len(specs)} }};")
    lines += [f"static int run_model(void) {{ return reconvene_run({', '.join(names)}); }}", ""]
    return "\n".join(lines)
