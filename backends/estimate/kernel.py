"""The cost of one kernel by itself: no model, no runtime, about a second, the same figures every time."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import IRModule, tirx
from tvm.tirx import BufferType

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text, replacing, write_text
from ...frontend.base.json_text import parse_json
from ..bundles.runtime_library import include_folders
from ..graph.nodes import Array
from ..machines.emulation import find_emulator
from ..machines.linkers import find_linker, invoke
from ..machines.targets import Target, find_target
from .blocks import blocks_of, steady
from .board import board_of, core_of, levels_of
from .core_model import BlockCycles, Core
from .cost import Cost, HotBlock, costs_of
from .counting import Command, count_instructions, count_misses, new_misses
from .plugin import native_source, plugin
from .symbols import symbols_of
from .tools import cache_folder, llvm_tool, version_of

__all__ = ["KernelProgram", "estimate_kernel", "kernel_program"]

_DRIVER = frozenset({"main"})
_REST = "driver"


@dataclass(frozen=True)
class KernelProgram:
    """A program that calls one kernel: where it is, the kernel's name, and how it is told of the kernel's tensors."""

    path: Path
    name: str
    tensors: tuple[str, ...]

    def call(self, passes: int, *, timed: bool = False) -> tuple[str, ...]:
        """The command line for so many passes; with `timed`, the program prints the nanoseconds of each."""
        return (str(self.path), "time" if timed else "count", str(passes), *self.tensors)


def estimate_kernel(
    kernel: tirx.PrimFunc | IRModule,
    target: str | Target,
    tables: Mapping[int, Array] | None = None,
    *,
    caches: bool = True,
    cached: bool = True,
) -> Cost:
    """What one call of a kernel costs on `target`, its data being as near as the call before left it.

    Args:
        kernel: a TIR function, or a module of one.
        tables: what arguments hold that decide what there is to do, by their places; other whole numbers are 0.
        caches: False leaves the misses, and what depends on them, at 0: faster.
        cached: whether to use and to keep results in the user's cache folder. The key is the machine code, the
            target and the versions of all tools.

    Raises:
        InputError: a tool is missing, LLVM has no model of the target's core, or the kernel does not run.
    """
    machine = find_target(target)
    core = core_of(machine)
    if machine.bare:
        raise InputError(f"'{machine.name}' has no system that one kernel could run on; estimate a bundle of a model")
    with tempfile.TemporaryDirectory(prefix="reconvene-kernel-") as folder:
        module, name = _named(kernel)
        objects = Path(folder) / "kernel.o"
        _compile(module, machine, objects)
        tensors, contents = _tensors(module[name]), _contents(tables or {}, Path(folder))
        key = _key(objects, [*tensors, *map(_digest, contents.values())], machine, core, caches)
        found = _recall(key) if cached else None
        if found is None:
            given = [f"{text}@{contents[place]}" if place in contents else text for place, text in enumerate(tensors)]
            program = _linked(objects, machine, name, given, Path(folder) / "kernel")
            found = _measured(program, machine, core, caches)
            if cached:
                write_text(key, json.dumps(asdict(found)))
    return found


def kernel_program(kernel: tirx.PrimFunc | IRModule, target: Target, folder: Path) -> KernelProgram:
    """Compiles and links a program for one kernel in `folder`.

    Raises:
        InputError: there is no compiler for the target, or it fails.
    """
    module, name = _named(kernel)
    objects = folder / f"{name}.o"
    _compile(module, target, objects)
    return _linked(objects, target, name, _tensors(module[name]), folder / name)


def _named(kernel: tirx.PrimFunc | IRModule) -> tuple[IRModule, str]:
    if isinstance(kernel, IRModule):
        names = [variable.name_hint for variable in kernel.functions]
        if len(names) != 1:
            raise InputError(f"a module of one kernel is needed, this has {len(names)}: {', '.join(names)}")
        return IRModule({names[0]: kernel[names[0]].with_attr("global_symbol", names[0])}), names[0]
    attributes = kernel.attrs or {}
    name = str(attributes["global_symbol"]) if "global_symbol" in attributes else "kernel"
    return IRModule({name: kernel.with_attr("global_symbol", name)}), name


def _compile(module: IRModule, target: Target, path: Path) -> None:
    tvm.tirx.build(module, target=tvm.target.Target(target.llvm())).write_to_file(str(path))


def _tensors(function: tirx.PrimFunc) -> list[str]:
    found = []
    for parameter in function.params:
        if not isinstance(parameter.ty, BufferType):
            raise InputError(f"parameter '{parameter.name}' of the kernel is no tensor; only tensors can be made up")
        kind = tvm.DataType(str(parameter.dtype))
        extents = ",".join(str(int(extent)) for extent in parameter.shape)
        found.append(f"{int(kind.type_code)}:{int(kind.bits)}:{extents}")
    return found


def _contents(tables: Mapping[int, Array], folder: Path) -> dict[int, Path]:
    """A file for each table."""
    files = {place: folder / f"table{place}" for place in tables}
    for place, path in files.items():
        path.write_bytes(tables[place].tobytes())
    return files


def _digest(path: Path) -> str:
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _linked(objects: Path, target: Target, name: str, tensors: Sequence[str], path: Path) -> KernelProgram:
    linker = find_linker(target, "static", cxx=True)
    call = [
        "-static",
        "-o",
        str(path),
        str(_driver(target)),
        str(objects),
        f"-Wl,--defsym=kernel_entry=__tvm_ffi_{name}",
    ]
    invoke(linker, call, "link the kernel")
    return KernelProgram(path, name, tuple(tensors))


def _driver(target: Target) -> Path:
    """The driver's object file for `target`, compiled once."""
    linker = find_linker(target, "static", cxx=True)
    source = native_source("driver.cc")
    flags = ["-std=c++17", "-O2", "-c", *(f"-I{folder}" for folder in include_folders())]
    text = "\0".join([source.read_text(encoding="utf-8"), *linker.command, version_of(linker.command[0]), *flags])
    path = cache_folder() / f"driver-{hashlib.sha256(text.encode()).hexdigest()[:16]}.o"
    if not path.is_file():
        with replacing(path) as temporary:
            invoke(linker, [*flags, "-o", str(temporary), str(source)], "compile the driver of kernels")
    return path


def _measured(program: KernelProgram, target: Target, core: Core, caches: bool) -> Cost:
    emulator = find_emulator(target).command
    commands = [Command(emulator, program.call(passes)) for passes in (1, 2)]
    levels = levels_of(target)
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(count_instructions, command) for command in commands]
        reads = [pool.submit(count_misses, command, levels) for command in commands] if caches else []
        first, second = (run.result() for run in runs)
        misses = new_misses(reads[1].result(), reads[0].result()) if caches else {}
    symbols = symbols_of(program.path)

    def owner(file: str, offset: int) -> str:
        # What the kernel calls, such as memset, is its own. Only the loop that calls it is not.
        name = symbols.at(offset) or ""
        return _REST if name in _DRIVER else program.name

    counted = blocks_of(steady(second, first))
    return costs_of(counted, misses, owner, core, board_of(target), _REST)[program.name]


def _key(objects: Path, tensors: Sequence[str], target: Target, core: Core, caches: bool) -> Path:
    """The file for what was found of some machine code."""
    tools = [version_of(find_emulator(target).command[0]), version_of(llvm_tool("llvm-mca"))]
    plugins = [plugin(name).name for name in ("blocks", "caches")]
    words = [
        *tensors,
        json.dumps(asdict(target), sort_keys=True),
        repr(core),
        *tools,
        *plugins,
        str(caches),
        _code_version(),
    ]
    digest = hashlib.sha256(objects.read_bytes() + "\0".join(words).encode()).hexdigest()[:32]
    folder = cache_folder() / "kernels"
    folder.mkdir(exist_ok=True)
    return folder / f"{digest}.json"


def _code_version() -> str:
    """Changes whenever the programs of this folder do."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _recall(path: Path) -> Cost | None:
    try:
        values: dict[str, Any] = parse_json(read_text(path))
        hot = values.pop("hottest")
        block = HotBlock(hot["count"], BlockCycles(**hot["cycles"]), tuple(hot["assembly"])) if hot else None
        return Cost(**values, hottest=block)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
