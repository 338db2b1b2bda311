"""A folder with an RPC server for a board: a C++ program, so the board needs no Python.

The wheels of TVM's runtime have the server's part of RPC too, so for their architectures the program only listens,
keeps sessions apart and talks to the tracker. Elsewhere that part is compiled from the sources in the wheel and lies in the
program, which then needs a C library as new as the compiler's.
"""

from __future__ import annotations

import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Literal

from ...frontend.base.errors import InputError
from ...frontend.base.files import replacing_folder, write_sums
from ..bundles.materials import server_contents
from ..bundles.notices import write_notices
from ..bundles.program import FLAGS, SMALL, link_against_wheel, own_source, quoted
from ..bundles.runtime_library import include_folders, remote_runtime, static_runtime
from ..bundles.runtime_wheels import has_wheel, wheel_runtime
from ..machines.linkers import Linker, find_linker, invoke
from ..machines.object_files import needed_glibc
from ..machines.targets import Target

__all__ = ["HEADERS", "SERVER", "Runtime", "check_server_runtime", "versions_source", "write_server"]

SERVER = "reconvene-server"

HEADERS = [
    f"{name}.h"
    for name in "calls regular sha256 rpc_bytes rpc_greeting rpc_log rpc_messages rpc_session rpc_tracker".split()
]
"""What the server's source includes."""

Runtime = Literal["wheel", "source"]


def check_server_runtime(target: Target, runtime: str | None) -> Runtime:
    """What a server for `target` would be made with. Raises InputError if that is not possible."""
    if target.bare:
        raise InputError(f"'{target.name}' has no operating system that a server could run on")
    if runtime not in (None, "wheel", "source"):
        raise InputError(f"a server's runtime is wheel or source, not '{runtime}'")
    if runtime == "wheel" and not has_wheel(target):
        raise InputError(f"there is no wheel of TVM for {target.triple}; use --runtime source")
    return "wheel" if runtime == "wheel" or (runtime is None and has_wheel(target)) else "source"


def write_server(target: Target, folder: Path, runtime: Runtime | None = None) -> Path:
    """Writes ``reconvene-server``, the libraries it needs, README.md and SHA256SUMS; an older server is replaced.

    Raises:
        InputError: the folder holds something else or cannot be written; there is no compiler for the target, or no
            wheel; or one of them fails.
    """
    chosen = check_server_runtime(target, runtime)
    if folder.exists() and not (folder.is_dir() and ((folder / SERVER).is_file() or not any(folder.iterdir()))):
        raise InputError(f"'{folder}' exists and holds no server; choose an empty or a new folder")
    linker = find_linker(target, "program", cxx=chosen == "source")
    with replacing_folder(folder) as temporary, tempfile.TemporaryDirectory() as place:
        work = Path(place)
        for header in HEADERS:
            own_source(header, work)
        sources = [own_source("rpc_server.cc", work), work / "versions.cc"]
        sources[1].write_text(versions_source(), encoding="utf-8")
        if chosen == "wheel":
            libraries = [Path(shutil.copy2(library, temporary)) for library in wheel_runtime(target)]
            link_against_wheel(linker, sources, libraries, temporary / SERVER, work)
        else:
            _link_with_runtime(linker, sources, temporary / SERVER)
        glibc = max((needed_glibc(file) or "0" for file in temporary.iterdir()), key=_number)
        contents = server_contents(linker, chosen == "wheel")
        write_notices(contents, temporary, f"an RPC server that reconvene made for {target.name}")
        (temporary / "README.md").write_text(_readme(target, glibc), encoding="utf-8")
        write_sums(temporary)
    return folder


def _link_with_runtime(linker: Linker, sources: list[Path], output: Path) -> None:
    files = [*sources, *static_runtime(linker), *remote_runtime(linker)]
    includes = [f"-I{path}" for path in include_folders()]
    # Libraries that are loaded look for the runtime's C interface in the program.
    options = [*SMALL, "-s", "-rdynamic", "-static-libstdc++", "-static-libgcc", "-pthread", "-ldl"]
    call = [*FLAGS, "-DTVM_FFI_EXPORTS", *includes, *map(str, files), *options, "-o", str(output)]
    invoke(linker, call, "link the server")


def versions_source() -> str:
    """C++ that says which versions the server is of."""
    tvm, own = (quoted(metadata.version(name)) for name in ("apache-tvm", "reconvene"))
    return f"extern const char kTvmVersion[] = {tvm}, kReconveneVersion[] = {own};\n"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _readme(target: Target, glibc: str) -> str:
    return f"""# An RPC server for {target.description or target.name}

Made by reconvene for `{target.name}` ({target.triple}), with TVM {metadata.version("apache-tvm")}. It needs Linux with
glibc {glibc} or later. Copy the folder to the board, make a key, and have it on the board and where you come from:

    (umask 077; openssl rand -hex 32 > board.key)
    scp -p board.key BOARD:

Then run, on the board,

    ./reconvene-server --host 0.0.0.0 --key-file ~/board.key        # alone
    ./reconvene-server --host 0.0.0.0 --key-file ~/board.key --tracker HOST:9190 --key {target.name}    # in a pool
    ./reconvene-server --help

It says which port it got. Then, elsewhere,

    reconvene bench BUNDLE --on rpc://BOARD:9090 --key-file board.key
    reconvene bench BUNDLE --on tracker://HOST:9190/{target.name} --key-file board.key

Sessions come one after the other, each in a process and a folder of its own that is removed afterwards. Others wait for their
turn, and are told when too many do.

**Whoever knows the key may run programs on the board.** What passes over the network after that can be read and changed by
whoever sits in between: where that is somebody else, leave out `--host`, which makes the server listen on the board itself
only, and come through ssh: `ssh -L 9090:localhost:9090 BOARD`.
"""
