"""A board's server for this machine, made of our sources and the installed TVM, with sanitisers.

TVM's own libraries are those of its wheel, which has no sanitisers in it: what they do with a session's bytes is not watched,
only that the server outlives it. What runs before a client is let in is all ours, and is.
"""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

from reconvene.backends.boards.server import HEADERS, versions_source
from reconvene.backends.bundles.program import own_source
from reconvene.backends.bundles.runtime_library import include_folders

__all__ = ["SANITISERS", "build_server"]

SANITISERS = {
    # A session ends by _exit, and what the server holds then is what it needs.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:exitcode=99",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
"""The environment in which a sanitised server runs."""

_LIBRARIES = {"tvm": "libtvm_runtime.so", "tvm_ffi": "libtvm_ffi.so"}


def build_server(output: Path, work: Path, *, sanitised: bool) -> None:
    """Compiles the server to `output`, with `work` for its sources. Raises CalledProcessError if that fails."""
    for header in HEADERS:
        own_source(header, work)
    (work / "versions.cc").write_text(versions_source(), encoding="utf-8")
    sources = [str(own_source("rpc_server.cc", work)), str(work / "versions.cc")]
    folders = [Path(importlib.util.find_spec(name).origin).parent / "lib" for name in _LIBRARIES]  # type: ignore[union-attr, arg-type]
    libraries = [str(folder / name) for folder, name in zip(folders, _LIBRARIES.values(), strict=True)]
    watched = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if sanitised else []
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-exceptions", "-fno-rtti", *watched]
    includes = [f"-I{path}" for path in include_folders()]
    paths = [f"-Wl,-rpath,{folder}" for folder in folders]
    call = ["g++", *flags, *includes, *sources, "-Wl,--no-as-needed", *libraries, *paths, "-o", str(output)]
    subprocess.run(call, check=True)
