"""A board's server for this machine, compiled with the sanitisers of addresses and undefined behaviour.

Its runtime is TVM's: from the installed wheel, which has no sanitisers in it, so that what it does with a session's bytes is
seen only by how the session ends; or compiled from its sources with sanitisers, as a board without a wheel has it without.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reconvene.backends.boards.server import HEADERS, versions_source
from reconvene.backends.bundles.program import own_source
from reconvene.backends.bundles.runtime_library import include_folders, remote_runtime, static_runtime
from reconvene.backends.machines.linkers import find_linker
from reconvene.backends.machines.targets import find_target

__all__ = ["ENVIRONMENT", "build_server", "has_sanitisers", "sanitised_runtime"]

ENVIRONMENT = {
    # A session ends by _exit, and what the server holds then is what it needs.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:exitcode=99",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
"""The environment in which a sanitised server runs."""

_SANITISED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
_LIBRARIES = {"tvm": "libtvm_runtime.so", "tvm_ffi": "libtvm_ffi.so"}


def has_sanitisers(folder: Path) -> bool:
    """Whether the compiler has the sanitisers' libraries. `folder` is for what is compiled to see that."""
    (folder / "empty.cc").write_text("int main() {}\n")
    call = ["g++", *_SANITISED, str(folder / "empty.cc"), "-o", str(folder / "empty")]
    try:
        return subprocess.run(call, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def sanitised_runtime(*, whole: bool = True) -> tuple[Path, ...]:
    """TVM's runtime with sanitisers, which is kept in the cache: two minutes and a half of one core the first time. If not
    `whole`, only what reads messages has one, that of addresses: a quarter of a minute, beside the runtime that all have.
    """
    flags = [*_SANITISED, "-g1", "-fno-omit-frame-pointer"] if whole else ["-fsanitize=address"]
    found = find_linker(find_target("host"), "program", cxx=True)
    linker = replace(found, command=(*found.command, *flags))
    return (*static_runtime(linker if whole else found), *remote_runtime(linker))


def build_server(output: Path, work: Path, runtime: Sequence[Path] = ()) -> None:
    """Compiles the server to `output`, with `work` for its sources, and with the object files of a runtime, or those of the
    wheel. Raises CalledProcessError if that fails.
    """
    for header in HEADERS:
        own_source(header, work)
    (work / "versions.cc").write_text(versions_source(), encoding="utf-8")
    sources = [str(own_source("rpc_server.cc", work)), str(work / "versions.cc")]
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti", *_SANITISED]
    includes = [f"-I{path}" for path in include_folders()]
    linked = ["-DTVM_FFI_EXPORTS", *map(str, runtime), "-rdynamic", "-pthread", "-ldl"] if runtime else _wheel()
    subprocess.run(["g++", *flags, *includes, *sources, *linked, "-o", str(output)], check=True)


def _wheel() -> list[str]:
    folders = [Path(importlib.util.find_spec(name).origin).parent / "lib" for name in _LIBRARIES]  # type: ignore[union-attr, arg-type]
    libraries = [str(folder / name) for folder, name in zip(folders, _LIBRARIES.values(), strict=True)]
    return ["-Wl,--no-as-needed", *libraries, *(f"-Wl,-rpath,{folder}" for folder in folders)]
