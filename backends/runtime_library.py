"""TVM's runtime for a board: compiled from the sources in the installed wheels, or taken out of the board's own wheels.

Both are made once and kept in the user's cache folder (`frontend.cache_folder`).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, resources
from pathlib import Path

from ..frontend.cache_folder import cache_folder
from ..frontend.errors import InputError
from ..frontend.progress import stage
from .linkers import Linker, invoke
from .targets import Target

__all__ = ["has_wheel", "include_folders", "remote_runtime", "static_runtime", "wheel_runtime"]

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

_PLATFORMS = {"aarch64": "manylinux_2_28_aarch64", "x86_64": "manylinux_2_28_x86_64"}
_LIBRARIES = {
    "apache-tvm": "tvm/lib/libtvm_runtime.so",
    "apache-tvm-ffi": "tvm_ffi/lib/libtvm_ffi.so",
}


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
    key = _digest(
        [*map(metadata.version, _VERSIONS), *linker.command, version, *flags, *units.values(), *headers.values()]
    )

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

    made = _made_once(f"runtime-{key}", build)
    return tuple(made / f"{name}.o" for name in units)


def has_wheel(target: Target) -> bool:
    """Whether the registry has a wheel of TVM's runtime for the target's architecture."""
    return target.architecture in _PLATFORMS


def wheel_runtime(target: Target) -> tuple[Path, ...]:
    """``libtvm_runtime.so`` and ``libtvm_ffi.so`` from the registry's wheels for the target's architecture.

    Raises:
        InputError: there is no wheel for the architecture, or it cannot be downloaded.
    """
    platform = _PLATFORMS.get(target.architecture)
    if platform is None:
        raise InputError(
            f"there is no wheel of TVM for {target.triple}, so no runtime to put into the bundle; use --runtime static"
        )
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"

    def build(folder: Path) -> None:
        with stage("downloading TVM's runtime for the board, once"):
            for name, member in _LIBRARIES.items():
                wheel = _download(f"{name}=={versions[name]}", platform, python, folder)
                with zipfile.ZipFile(wheel) as archive:
                    (folder / Path(member).name).write_bytes(archive.read(member))
                wheel.unlink()

    made = _made_once(f"wheel-{platform}-{_digest([*versions.values()])}", build)
    return tuple(made / Path(member).name for member in _LIBRARIES.values())


def _download(requirement: str, platform: str, python: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", platform, "--python-version", python, "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel came"]
        raise InputError(
            f"cannot download {requirement} for {platform}: {lines[-1].removeprefix('ERROR: ')}; it needs the network"
            " once, or use --runtime static"
        )
    return wheels[0]


def _made_once(name: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `name`, which `build` fills if it is not there; it appears complete or not at all."""
    final = cache_folder() / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with (final.parent / f".{name}.lock").open("w") as lock:
            # Whoever comes while it is being made waits, instead of making it again.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not final.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as temporary:
                    made = Path(temporary) / "made"
                    made.mkdir()
                    build(made)
                    made.rename(final)
    except OSError as error:
        raise InputError(
            f"cannot write the cache '{final.parent}': {error.strerror or error}; set RECONVENE_CACHE to a folder with room"
        ) from None
    return final


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


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
