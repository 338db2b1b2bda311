"""TVM's runtime for a board, compiled from the sources in the installed wheels: once for a compiler.

It is kept in the user's cache folder (`frontend.base.cache_folder`), for all environments that have these versions.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, resources
from pathlib import Path

from ...frontend.base.cache_folder import cache_folder
from ...frontend.base.errors import InputError
from ...frontend.base.files import read_sums, sha256, write_sums
from ...frontend.base.progress import stage
from ...frontend.base.systems import is_ours, turn_at
from ..machines.linkers import Linker, invoke

__all__ = ["digest", "include_folders", "made_once", "remote_runtime", "static_runtime"]

_VERSIONS = ("apache-tvm", "apache-tvm-ffi")

_FFI = (
    "backtrace object error function tensor dtype container init_once custom_allocator extra/module"
    " extra/library_module extra/library_module_system_lib extra/env_context extra/env_c_api extra/json_parser"
    " extra/json_writer"
).split()
_RUNTIME = (
    "file_utils cpu_device_api device_api logging module tensor thread_pool threading_backend timer workspace_pool"
    " memory/memory_manager vm/builtin vm/bytecode vm/executable vm/vm"
).split()
_REMOTE = "rpc_channel rpc_device_api rpc_endpoint rpc_local_session rpc_module rpc_server_env rpc_session".split()
_LIBRARY_LOADER = "extra/library_module_dynamic_lib"

_FLAGS = (
    "-std=c++17 -Os -w -Wno-psabi -ffunction-sections -fdata-sections -DTVM_FFI_USE_LIBBACKTRACE=0"
    " -DTVM_FFI_BACKTRACE_ON_SEGFAULT=0 -DTVM_LOG_STACK_TRACE=0 -DTVM_FFI_EXPORTS -DTVM_RUNTIME_EXPORTS"
).split()

_MUSL_FLAGS = ["-DTVM_FFI_CMAKE_LITTLE_ENDIAN=1"]
"""What TVM's headers find out by themselves with other C libraries."""


def include_folders() -> tuple[Path, ...]:
    """The headers of TVM's runtime and of its foreign function interface."""
    return (_package("tvm") / "include", _package("tvm_ffi") / "include")


def static_runtime(linker: Linker) -> tuple[Path, ...]:
    """Object files of the runtime, without its remote and GPU parts, for a program that brings everything along.

    Compiled on the first call for a compiler: about 40 seconds of one core.

    Raises:
        InputError: the compiler fails, or the cache folder cannot be written.
    """
    ffi, tvm = _package("tvm_ffi") / "src" / "ffi", _package("tvm") / "src" / "runtime"
    # One unit for each of the two libraries: their headers take longer to compile than they do.
    return _compiled(linker, {"ffi": _unit(ffi, _FFI), "vm": _unit(tvm, _RUNTIME)})


def remote_runtime(linker: Linker) -> tuple[Path, ...]:
    """Object files of what an RPC server needs beside those of `static_runtime`: sessions, and loading libraries.

    Raises:
        InputError: as `static_runtime`.
    """
    ffi, rpc = _package("tvm_ffi") / "src" / "ffi", _package("tvm") / "src" / "runtime" / "rpc"
    own = resources.files(__package__).joinpath("runtime", "rpc_socket.cc").read_text(encoding="utf-8")
    units = {"library": _unit(ffi, [_LIBRARY_LOADER]), "rpc": _unit(rpc, _REMOTE) + own}
    return _compiled(linker, units, include=rpc)


def _unit(folder: Path, names: Sequence[str]) -> str:
    return "".join(f'#include "{folder / name}.cc"\n' for name in names)


def _compiled(linker: Linker, units: Mapping[str, str], include: Path | None = None) -> tuple[Path, ...]:
    """Objects of `units`, sources by name; made once for a compiler and kept."""
    support = resources.files(__package__).joinpath("runtime", "support")
    headers = {entry.name: entry.read_text(encoding="utf-8") for entry in support.iterdir() if entry.name[-2:] == ".h"}
    flags = [*_FLAGS, *(_MUSL_FLAGS if linker.kind == "zig" else ())]
    version = subprocess.run([*linker.command, "--version"], capture_output=True, text=True, check=False).stdout
    said = [_anywhere(part) for part in (*linker.command, *units.values())]
    key = digest([*map(metadata.version, _VERSIONS), *said, version, *flags, *headers.values()])

    def build(folder: Path) -> None:
        _write_headers(folder / "include", headers)
        includes = [
            f"-I{path}" for path in (folder / "include" / "x", folder / "include" / "x" / "x", folder / "include")
        ]
        includes += [f"-I{path}" for path in (*include_folders(), _package("tvm_ffi") / "src")]
        includes += [f"-I{include}"] if include else []

        def compile_unit(name: str) -> None:
            (folder / f"{name}.cc").write_text(units[name], encoding="utf-8")
            invoke(
                linker,
                [*flags, *includes, "-c", str(folder / f"{name}.cc"), "-o", str(folder / f"{name}.o")],
                "compile TVM's runtime",
            )

        with stage("compiling the runtime, once for this architecture"), ThreadPoolExecutor() as pool:
            list(pool.map(compile_unit, units))
        shutil.rmtree(folder / "include")

    made = made_once(f"runtime-{key}", build)
    return tuple(made / f"{name}.o" for name in units)


def _anywhere(text: str) -> str:
    """`text` without where the environment is: its versions say what is in it."""
    for name in ("tvm", "tvm_ffi"):
        text = text.replace(str(_package(name)), name)
    return text.replace(sys.executable, "python")


def made_once(name: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `name`, which `build` fills if it is not there or damaged; it appears complete or not at all.

    Raises:
        InputError: the cache folder cannot be written, or what `build` raises.
    """
    final = cache_folder() / name
    if _whole(final):
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with turn_at(final.parent / f".{name}.lock"):  # Whoever comes while it is being made does not make it again.
            if not _whole(final):
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as temporary:
                    made = Path(temporary) / "made"
                    made.mkdir()
                    build(made)
                    write_sums(made)
                    if final.exists():
                        final.rename(Path(temporary) / "damaged")
                    made.rename(final)
    except OSError as error:
        raise InputError(
            f"cannot write the cache '{final.parent}': {error.strerror or error}; set RECONVENE_CACHE to a folder with room"
        ) from None
    return final


def _whole(folder: Path) -> bool:
    """Whether every file of `folder` has the checksum it was written with, and nobody else put it there."""
    try:
        if not is_ours(folder):
            return False
        sums = read_sums(folder)
        return bool(sums) and all(sha256(folder / name) == digest for name, digest in sums.items())
    except (OSError, ValueError, InputError):
        return False


def _write_headers(folder: Path, headers: dict[str, str]) -> None:
    """The headers where the runtime's sources look for them.

    Some sources name them relative to their own folder (``../support/utils.h``). Folders as deep as theirs make that
    come out here.
    """
    for place in (
        folder / "support",
        folder / "tvm" / "support",
        folder / "tvm" / "support" / "cuda",
        folder / "x" / "x",
    ):
        place.mkdir(parents=True)
    for name, text in headers.items():
        for where in ("support", "tvm/support", "tvm/support/cuda"):
            (folder / where / name).write_text(text, encoding="utf-8")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError(f"the package '{name}' is not installed; install reconvene with its dependencies")
    return Path(spec.origin).parent


def digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
