"""A model as C sources and objects without any runtime: its kernels, their weights, and a function that calls them in
turn with all memory reserved in advance.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tvm
from tvm import IRModule, tirx
from tvm_ffi import structural_map, structural_walk

from ...frontend.base.errors import InputError
from ..artifact import Artifact
from ..code.weights import WeightPlace, pack
from ..machines.linkers import Linker, find_linker, invoke
from ..machines.object_files import sizes_of
from ..state import state_bytes
from .bare import c_type, write_bare_program
from .binding import Binding
from .c_sources import header_source, model_source
from .call_plan import call_plan
from .manifest import PROGRAM
from .places import WEIGHTS, constants_assembly
from .program import runner_sources

__all__ = ["Figures", "write_standalone"]

_FLAGS = "-std=c11 -O2 -Wall -Wextra -ffunction-sections -fdata-sections".split()


@dataclass(frozen=True)
class Figures:
    """Bytes the model takes on its machine, its inputs, outputs and stack not counted.

    Attributes:
        flash: code, weights and other constants, from the program's own sections where one was linked, else from the
            objects; None where no compiler for the target is here to make the last of these.
        ram: `arena`, `workspace`, `state`, and what the C code itself keeps; None as `flash`.
        weights: of the weights alone, and of what the state begins with.
        arena: for values between kernels, shared by those that are not needed at the same time.
        workspace: for values within a kernel.
        state: for buffers that are kept from call to call.
    """

    flash: int | None
    ram: int | None
    weights: int
    arena: int
    workspace: int
    state: int


def write_standalone(artifact: Artifact, folder: Path, binding: Binding) -> tuple[WeightPlace, ...]:
    """Writes ``reconvene_model.h`` and ``.c``, ``kernels.o``, ``weights.S`` and ``.bin``, and ``figures.json``; and the
    program ``run`` made of them where the machine has an operating system and a compiler for it is here.

    Raises:
        InputError: the model has a part that only TVM's runtime can do, or a dtype that C has no type for.
    """
    target = tvm.target.Target(artifact.target.llvm())
    alignment = artifact.arena.alignment
    blob = folder / "weights.bin"
    begun = [entry for entry in artifact.state if not entry.zero]
    with blob.open("wb") as stream:
        offsets = pack([*artifact.weights, *(entry.initial.numpy() for entry in begun)], stream, alignment)
    plan = call_plan(artifact, offsets[: len(artifact.weights)])
    initials = dict(zip(begun, offsets[len(artifact.weights) :], strict=True))
    workspace = _write_kernels(artifact.scheduled, target, folder / "kernels.o")
    assembly = constants_assembly(artifact.target, WEIGHTS, alignment, blob.name)
    (folder / "weights.S").write_text(assembly, encoding="utf-8")
    (folder / "reconvene_model.h").write_text(header_source(artifact, alignment), encoding="utf-8")
    source = model_source(artifact, plan, workspace, alignment, initials)
    (folder / "reconvene_model.c").write_text(source, encoding="utf-8")
    figures = Figures(None, None, blob.stat().st_size, artifact.arena.bytes, workspace, state_bytes(artifact.state))
    linker = _linker(artifact)
    if linker is not None:
        figures = _compiled(artifact, folder, linker, figures, binding)
    (folder / "figures.json").write_text(json.dumps(asdict(figures), indent=2) + "\n", encoding="utf-8")
    return ()


def _linker(artifact: Artifact) -> Linker | None:
    try:
        return find_linker(artifact.target, "static")
    except InputError:
        # The sources are for any compiler; only what is made of them here is missing.
        return None


def _in_turn(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """`function` with its parallel loops done in turn: here is nobody to share them with."""

    def serial(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return structural_map(function, (tirx.For, serial))


def _write_kernels(module: IRModule, target: tvm.target.Target, path: Path) -> int:
    """Compiles the kernels into `path`. Returns how many bytes of workspace they need."""
    functions = {name: function for name, function in module.functions.items() if isinstance(function, tirx.PrimFunc)}
    kernels = {name: _in_turn(f).with_attr("global_symbol", name.name_hint) for name, f in functions.items()}
    pipeline, finish, _ = tirx.get_tir_pipeline("default")
    bound = tirx.transform.BindTarget(target.with_host(target))(IRModule(kernels, attrs=module.attrs))
    # What the entries would check is known when the calls of them are written.
    lowered = tirx.transform.SkipAssert()(finish()(pipeline(bound)))
    tvm.get_global_func("target.build.llvm")(lowered, target).write_to_file(str(path), "o")
    return max((_workspace(function) for function in lowered.functions.values()), default=0)


def _workspace(function: tirx.PrimFunc) -> int:
    """Bytes of all workspace of a lowered kernel, as if it were in use at the same time."""
    sizes: list[int] = []

    def visit(buffer: Any) -> None:
        if getattr(getattr(buffer.data, "op", None), "name", "") == "tirx.TVMBackendAllocWorkspace":
            sizes.append(-(-int(buffer.data.args[2]) // 64) * 64)

    structural_walk(function, (tirx.DeclBuffer, visit))
    return sum(sizes)


def _compiled(artifact: Artifact, folder: Path, linker: Linker, figures: Figures, binding: Binding) -> Figures:
    """The figures with those of the compiled sources; and the program, where there is a system to run it."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        objects = [folder / "kernels.o", work / "model.o", work / "weights.o"]
        flags = [*_FLAGS, *_cpu_flags(artifact)]
        invoke(
            linker, [*flags, "-x", "c", "-c", "reconvene_model.c", "-o", str(objects[1])], "compile the model", folder
        )
        invoke(
            linker, [*_cpu_flags(artifact), "-c", "weights.S", "-o", str(objects[2])], "assemble the weights", folder
        )
        sizes = sizes_of(objects)
        if artifact.target.bare:
            linked = [*objects, *binding.sources(work)]
            sizes = write_bare_program(artifact, folder, linker, [*_cpu_flags(artifact)], linked, work) or sizes
        else:
            (work / "glue.cc").write_text(_glue(artifact), encoding="utf-8")
            sources = [*runner_sources(artifact, work, "standalone.cc", threads=1), work / "glue.cc"]
            options = [
                "-std=c++17",
                "-O2",
                "-fno-exceptions",
                "-fno-rtti",
                f"-I{folder}",
                "-static",
                "-Wl,--gc-sections",
                # ziglang's C library comes with what a debugger wants to know of it. Names stay, for profilers.
                "-Wl,--strip-debug",
            ]
            files = [str(path) for path in (*sources, *objects, *binding.sources(work))]
            invoke(linker, [*options, *files, "-lm", "-o", str(folder / PROGRAM)], "link the program")
    return replace(figures, flash=sizes.flash, ram=sizes.ram)


def _cpu_flags(artifact: Artifact) -> list[str]:
    """What the C compiler must know so that its objects go with the kernels."""
    if not artifact.target.bare:
        return []
    unit = {"cortex-m4": "fpv4-sp-d16", "cortex-m7": "fpv5-d16"}.get(artifact.target.cpu, "auto")
    return [
        f"-mcpu={artifact.target.cpu}",
        "-mthumb",
        f"-mfloat-abi={artifact.target.float_abi or 'soft'}",
        f"-mfpu={unit}",
    ]


def _glue(artifact: Artifact) -> str:
    """Calls reconvene_run with arrays that are known by number."""
    inputs = [f"static_cast<const {c_type(s.dtype)}*>(inputs[{i}])" for i, s in enumerate(artifact.inputs)]
    outputs = [f"static_cast<{c_type(s.dtype)}*>(outputs[{i}])" for i, s in enumerate(artifact.outputs)]
    reset = "reconvene_reset();" if artifact.state else ""
    return (
        '#include "reconvene_model.h"\n\n'
        "int reconvene_run_arrays(void* const* inputs, void* const* outputs) {\n"
        f"  return reconvene_run({', '.join(inputs + outputs)});\n}}\n"
        f"void reconvene_reset_arrays() {{ {reset} }}\n"
    )
