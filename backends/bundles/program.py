"""The program ``run`` of a bundle: our C++ runner with a model, and what executes it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from ...frontend.base.errors import InputError
from ..artifact import Artifact
from ..code.weights import WeightPlace, pack, write_weights
from ..dtypes import DTYPES
from ..machines.linkers import Linker, find_linker, invoke, link_shared
from ..machines.object_files import defined_symbols
from ..signature import TensorSpec
from ..tensor_spec import ALIGNMENT
from .binding import Binding
from .manifest import PROGRAM
from .places import STATE, WEIGHTS, constants_assembly, places_source, state_source
from .runtime_library import include_folders, static_runtime
from .runtime_wheels import wheel_runtime

__all__ = [
    "FLAGS",
    "SMALL",
    "link_against_wheel",
    "model_objects",
    "own_source",
    "quoted",
    "runner_sources",
    "signature_source",
    "write_static_program",
    "write_wheel_program",
]

FLAGS = "-std=c++17 -O2 -Wall -Wextra -fno-exceptions -fno-rtti -ffunction-sections -fdata-sections".split()
SMALL = ["-Wl,--gc-sections"]


def write_static_program(artifact: Artifact, folder: Path, binding: Binding) -> tuple[WeightPlace, ...]:
    """Writes ``run``: the runner, TVM's runtime and the model in one file that needs nothing of the machine. The weights
    are among its constants, and are used there.

    Raises:
        InputError: there is no compiler for the target, or it fails.
    """
    linker = find_linker(artifact.target, "static", cxx=True)
    runtime = static_runtime(linker)
    with model_objects(artifact) as objects, tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        symbols = work / "symbols.cc"
        symbols.write_text(_symbols_source(defined_symbols(objects)), encoding="utf-8")
        sources = [*runner_sources(artifact, work, "virtual_machine.cc"), symbols, *_weights_inside(artifact, work)]
        sources += [*state_sources(artifact, work), *binding.sources(work)]
        kept = work / "kept"
        kept.write_text("\n".join(defined_symbols(objects, local=True)) + "\n", encoding="utf-8")
        # Names of kernels stay, for profilers; all other names go. ziglang's linker keeps all or none.
        names = "--strip-debug" if linker.kind == "zig" else f"--retain-symbols-file={kept}"
        options = [*SMALL, "-static", f"-Wl,{names}", "-pthread"]
        includes = [f"-I{path}" for path in include_folders()]
        files = [str(path) for path in (*sources, *objects, *runtime)]
        output = ["-o", str(folder / PROGRAM)]
        call = [*FLAGS, "-DSTATIC_MODEL", "-DTVM_FFI_EXPORTS", *includes, *files, *options, *output]
        invoke(linker, call, "link the program")
    return ()


def write_wheel_program(artifact: Artifact, folder: Path, binding: Binding) -> tuple[WeightPlace, ...]:
    """Writes ``run``, ``model.so``, the weights, and the two libraries of the registry's wheels that they use.

    Raises:
        InputError: there is no compiler for the target or no wheel, or one of them fails.
    """
    linker = find_linker(artifact.target, "program")
    libraries = [Path(shutil.copy2(library, folder)) for library in wheel_runtime(artifact.target)]
    places = write_weights(artifact.weights, folder)
    with model_objects(artifact) as objects:
        link_shared(linker, folder / "model.so", [*objects, *binding.sources(objects[0].parent, places)])
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        sources = [
            *runner_sources(artifact, work, "virtual_machine.cc"),
            _weights_beside(artifact, places, folder, work),
        ]
        sources += [*state_sources(artifact, work), *binding.sources(work, places)]
        link_against_wheel(linker, sources, libraries, folder / PROGRAM, work)
    return places


def link_against_wheel(
    linker: Linker, sources: Sequence[Path], libraries: Sequence[Path], output: Path, work: Path
) -> None:
    """Links a program that finds the wheel's `libraries` beside itself and runs with C libraries as old as theirs."""
    options = [*SMALL, "-s", "-Wl,--as-needed", "-Wl,--allow-shlib-undefined", "-Wl,-rpath,$ORIGIN"]
    files = list(sources)
    if linker.kind != "zig":
        # Its own start code would ask for the newest C library. See start.cc.
        files.append(own_source("start.cc", work))
        options.append("-nostartfiles")
    includes = [f"-I{path}" for path in include_folders()]
    # The runtime only registers itself, so no symbol of it is asked for.
    needed = ["-Wl,--no-as-needed", *map(str, libraries), "-Wl,--as-needed"]
    call = [*FLAGS, *includes, *map(str, files), *options, *needed, "-o", str(output)]
    invoke(linker, call, "link the program")


def runner_sources(artifact: Artifact, folder: Path, executor: str, threads: int | None = None) -> list[Path]:
    """The runner's sources for `artifact`, put into `folder`: its own, `executor`, and the model's signature."""
    for header in ("calls.h", "model.h", "regular.h", "sha256.h", "switching.h"):
        own_source(header, folder)
    signature = folder / "signature.cc"
    signature.write_text(signature_source(artifact, threads), encoding="utf-8")
    return [own_source("run.cc", folder), own_source(executor, folder), signature]


def state_sources(artifact: Artifact, folder: Path) -> list[Path]:
    """Sources of what the state holds before the first call, among the program's constants: model.h."""
    blob, assembly, table = folder / "state.bin", folder / "state.S", folder / "state.cc"
    stored = [entry for entry in artifact.state if not entry.zero]
    with blob.open("wb") as stream:
        offsets = pack([entry.initial.numpy() for entry in stored], stream)
    assembly.write_text(constants_assembly(artifact.target, STATE, ALIGNMENT, str(blob)), encoding="utf-8")
    known = dict(zip(stored, offsets, strict=True))
    table.write_text(state_source([known.get(entry) for entry in artifact.state]), encoding="utf-8")
    return [assembly, table]


def _weights_inside(artifact: Artifact, folder: Path) -> list[Path]:
    """Sources of a program that has the weights among its constants and reads them there."""
    blob, assembly = folder / "weights.bin", folder / "weights.S"
    with blob.open("wb") as stream:
        offsets = pack(artifact.weights, stream)
    assembly.write_text(constants_assembly(artifact.target, WEIGHTS, ALIGNMENT, str(blob)), encoding="utf-8")
    places = [
        WeightPlace(blob.name, offset, tuple(map(int, weight.shape)), str(weight.dtype))
        for weight, offset in zip(artifact.weights, offsets, strict=True)
    ]
    text = places_source(places, {blob.name: blob.stat().st_size}, artifact.arena, inside=True)
    return [_places(text, folder), assembly]


def _weights_beside(artifact: Artifact, places: Sequence[WeightPlace], bundle: Path, folder: Path) -> Path:
    """The source of a program that maps the weights' files in the folder it lies in."""
    sizes = {place.file: (bundle / place.file).stat().st_size for place in places}
    return _places(places_source(places, sizes, artifact.arena, inside=False), folder)


def _places(text: str, folder: Path) -> Path:
    own_source("memory.h", folder)
    path = folder / "places.cc"
    path.write_text(text, encoding="utf-8")
    return path


def own_source(name: str, folder: Path) -> Path:
    path = folder / name
    path.write_text(
        resources.files(__package__).joinpath("runtime", name).read_text(encoding="utf-8"), encoding="utf-8"
    )
    return path


def signature_source(artifact: Artifact, threads: int | None = None) -> str:
    """What model.h declares of the model: names, dtypes and shapes, and what it was compiled for.

    Raises:
        InputError: a dtype has no .npy form.
    """
    target = artifact.target
    lines = ['#include "model.h"']
    for name, specs in (
        ("Input", artifact.inputs),
        ("Output", artifact.outputs),
        ("State", [s.spec for s in artifact.state]),
    ):
        lines += [f"static const int64_t k{name}Shape{i}[] = {{{_shape(spec)}}};" for i, spec in enumerate(specs)]
        rows = [f"    {_spec(spec, f'k{name}Shape{i}')}" for i, spec in enumerate(specs)] or ["    {}"]
        lines += [f"const Spec k{name}s[] = {{", ",\n".join(rows) + "};", f"const int k{name}Count = {len(specs)};"]
    lines += [
        f"const char kTarget[] = {quoted(target.name)};",
        f"const char kCpu[] = {quoted(target.cpu)};",
        f"const int kThreads = {threads or artifact.threads or 1};",
    ]
    return "\n".join(lines) + "\n"


def _shape(spec: TensorSpec) -> str:
    return ", ".join(map(str, spec.shape)) or "0"


def _spec(spec: TensorSpec, shape: str) -> str:
    description = DTYPES[spec.dtype].npy
    if description is None:
        known = ", ".join(name for name, kind in DTYPES.items() if kind.npy)
        raise InputError(f"'{spec.name}' is {spec.dtype}, which the program cannot read or write; it knows {known}")
    name = quoted(spec.name)
    return f'{{{name}, "{spec.dtype}", "{description}", {description[2:]}, {len(spec.shape)}, {shape}}}'


def quoted(text: str) -> str:
    """`text` as a C string."""
    return json.dumps(text, ensure_ascii=True)


def _symbols_source(names: Sequence[str]) -> str:
    """A table of what a model's objects define, for the runtime to look up as it would in a shared library."""
    declared = "".join(f'extern "C" char {name}[];\n' for name in names)
    rows = "".join(f'    {{"{name}", {name}}},\n' for name in names)
    return (
        f"struct Symbol {{\n  const char* name;\n  void* address;\n}};\n{declared}"
        f"extern const Symbol kSymbols[];\nextern const int kSymbolCount;\n"
        f"const Symbol kSymbols[] = {{\n{rows}}};\nconst int kSymbolCount = {len(names)};\n"
    )


@contextmanager
def model_objects(artifact: Artifact) -> Iterator[tuple[Path, ...]]:
    """The model's object files, as long as the block runs. Its weights are not in them."""
    with tempfile.TemporaryDirectory() as temporary:
        paths = [Path(temporary) / name for name in sorted(artifact.objects)]
        for path in paths:
            path.write_bytes(artifact.objects[path.name])
        yield tuple(paths)
