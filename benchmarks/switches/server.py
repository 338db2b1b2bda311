"""`reconvene serve` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from reconvene.driver.portfolio.manifest import Portfolio

__all__ = ["served"]


@contextmanager
def served(portfolio: Portfolio, threads: int, variant: str | None = None) -> Iterator[tuple[str, int, psutil.Process]]:
    """`reconvene serve` on a free port, once it accepts connections."""
    with tempfile.TemporaryDirectory() as state:
        call = [sys.executable, "-m", "reconvene", "serve", str(portfolio.folder), "--port", "0"]
        call += ["--threads", str(threads), "--state", f"{state}/state.json"]
        call += ["--variant", variant] if variant else []
        server = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert server.stderr is not None
            line = next((line for line in server.stderr if line.startswith(("serving ", "error: "))), "it said nothing")
            if not line.startswith("serving "):
                raise OSError(f"the server did not start: {line.strip()}")
            threading.Thread(target=server.stderr.read, daemon=True).start()
            host, _, port = line.split()[-1].removeprefix("http://").partition(":")
            yield host, int(port), psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait()
