"""Emulated boards that serve TVM's RPC on the loopback address."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from attacks.servers import ENVIRONMENT, build_server

from reconvene.backends.boards.place import Place
from reconvene.backends.boards.server import SERVER
from reconvene.backends.machines.emulation import find_emulator
from reconvene.backends.machines.targets import find_target

__all__ = ["Served", "native_server", "serving", "serving_here"]


class Served:
    """A running server: its process, where it listens, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self.port = 0
        while not self.port:
            line = self.line()
            if "listening on" in line:
                self.port = int(line.rpartition(":")[2])

    @property
    def place(self) -> Place:
        return Place("rpc", "127.0.0.1", self.port)

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server ended: {self.said}"
        self.said.append(line.strip())
        return line.strip()

    def wait_for(self, words: str) -> None:
        while words not in self.line():
            pass


def native_server(folder: Path, runtime: Sequence[Path] = ()) -> Path:
    """A server for this machine, watched by the sanitisers of addresses and undefined behaviour, with the installed TVM or the
    object files of a runtime.
    """
    with tempfile.TemporaryDirectory() as temporary:
        build_server(folder / SERVER, Path(temporary), runtime)
    return folder


@contextlib.contextmanager
def serving_here(folder: Path, *options: str, scratch: Path) -> Iterator[Served]:
    """A native server within the block, which must have no report of a sanitiser at its end."""
    environment = {**os.environ, "TMPDIR": str(scratch), **ENVIRONMENT}
    process = subprocess.Popen(
        [str(folder / SERVER), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    with contextlib.closing(process.stdout):  # type: ignore[type-var]
        served = Served(process)
        try:
            yield served
        finally:
            process.terminate()
            rest, _ = process.communicate(timeout=20)
            served.said += rest.splitlines()
    assert process.returncode == 0 and not any("ERROR: " in line or "runtime error" in line for line in served.said)


@contextlib.contextmanager
def serving(
    folder: Path, target: str, *options: str, prefix: tuple[str, ...] = (), scratch: Path | None = None
) -> Iterator[Served]:
    """The server in `folder` under QEMU within the block; `prefix` stands before the call."""
    command = list(find_emulator(find_target(target), libraries=True).command)
    chosen = ["--host", "127.0.0.1", "--launch", " ".join(command), *options]
    # The emulated server's own folder for files, so that a test can look what is left of them.
    environment = ["-E", f"TMPDIR={scratch}"] if scratch else []
    call = [*prefix, *command, *environment, str(folder / SERVER), *chosen]
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    try:
        yield Served(process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
