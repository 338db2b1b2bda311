"""`reconvene serve` in a process of its own, and what it writes, says of its health, and answers."""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from reconvene.driver.portfolio.manifest import Portfolio, open_portfolio

NAME = "target"


@dataclass
class Served:
    """A server that is up."""

    host: str
    port: int
    process: psutil.Process
    lines: list[str] = field(default_factory=list)
    """What it wrote to stderr."""

    def tracebacks(self) -> int:
        return sum("Traceback" in line or line.startswith("internal error") for line in self.lines)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port)


def made(folder: Path) -> Portfolio:
    """A portfolio of two small variants."""
    import reconvene
    from reconvene.driver.portfolio.build import Options, build_portfolio
    from reconvene.driver.portfolio.sources import pruned_sources

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )
    images = (torch.randn(1, 3, 8, 8),)
    sources = pruned_sources(reconvene.capture(model.eval(), images), images, (0, 0.5), "magnitude")
    build_portfolio(sources, folder / NAME, NAME, Options(repeat=2))
    return open_portfolio(folder / NAME)


@contextmanager
def served(portfolio: Portfolio, state: Path, *options: str) -> Iterator[Served]:
    """A server of `portfolio` on a free port, once it accepts connections; ended with SIGTERM."""
    call = [sys.executable, "-m", "reconvene", "serve", str(portfolio.folder), "--port", "0", "--state", str(state)]
    with subprocess.Popen([*call, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line.rstrip())
                if line.startswith(("serving ", "error: ")):
                    break
            if not said or not said[-1].startswith("serving "):
                raise OSError(f"the server did not start: {said[-1:]}")
            host, _, port = said[-1].split()[-1].removeprefix("http://").partition(":")
            found = Served(host, int(port), psutil.Process(process.pid))
            threading.Thread(target=lambda: found.lines.extend(iter(process.stderr.readline, "")), daemon=True).start()  # type: ignore[union-attr]
            yield found
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


class Pulse:
    """Asks the server whether it is alive, every few milliseconds on one connection, and notes how long that takes.

    A thread of its own, so that what the other clients do is measured as little as may be. The connection is opened anew where
    the server closed it.
    """

    def __init__(self, server: Served, pause: float = 0.01) -> None:
        self._server, self._pause = server, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self.milliseconds: list[float] = []
        self.failed = 0

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> dict[str, Any]:
        found = sorted(self.milliseconds) or [float("nan")]
        return {
            "asked": len(self.milliseconds),
            "failed": self.failed,
            "median_ms": round(found[len(found) // 2], 2),
            "p99_ms": round(found[int(0.99 * (len(found) - 1))], 2),
            "longest_ms": round(found[-1], 2),
        }

    def _beat(self) -> None:
        client = http.client.HTTPConnection(self._server.host, self._server.port, timeout=60)
        while not self._stop.wait(self._pause):
            started = time.perf_counter()
            try:
                client.request("GET", "/v2/health/live")
                answer = client.getresponse()
                if answer.status != 200 or not answer.read():
                    raise OSError(answer.status)
                self.milliseconds.append(1e3 * (time.perf_counter() - started))
            except (OSError, http.client.HTTPException):
                self.failed += 1
                client.close()
        client.close()


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def asked(server: Served, request: bytes, seconds: float = 60) -> tuple[int, float, bytes]:
    """Status, milliseconds and body for a request on a connection of its own; status 0 if there was no answer."""
    started = time.perf_counter()
    status, body = 0, b""
    with suppress(OSError, EOFError, TimeoutError):
        reader, writer = await server.connect()
        writer.write(request)
        status, _, body = await asyncio.wait_for(response(reader), seconds)
        writer.close()
    return status, 1e3 * (time.perf_counter() - started), body


def post(path: str, body: bytes, *lines: str, close: bool = False) -> bytes:
    """A whole request with a JSON body."""
    head = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Content-Length: {len(body)}", *lines, *["Connection: close"] * close, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def wish(variant: str) -> bytes:
    """A whole request to switch."""
    return post(f"/v2/repository/models/{NAME}/load", json.dumps({"parameters": {"variant": variant}}).encode())
