"""Processes of `reconvene serve`, and whether their answers are right."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np

from tests.support.portfolios import INPUTS, WIDTHS, network

X = INPUTS[0].numpy()
EXPECTED = {name: network(width)(*INPUTS).detach().numpy() for name, width in WIDTHS.items()}
JSON_REQUEST = {"inputs": [{"name": "input", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": X.ravel().tolist()}]}


@dataclass
class Server:
    """A process of ``reconvene serve``, and what it wrote so far."""

    process: subprocess.Popen[str]
    unix: Path
    state: Path
    lines: list[str]

    @property
    def url(self) -> str:
        line = next(line for line in self.lines if line.startswith("serving "))
        return next(word for word in line.split() if word.startswith("http://"))

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(transport=httpx.HTTPTransport(uds=str(self.unix)), base_url="http://server", **options)

    def load(self, name: str) -> Any:
        with self.client(timeout=30) as client:
            return client.post("/v2/repository/models/tiny/load", json={"parameters": {"variant": name}})

    def wait_for(self, text: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None and time.monotonic() < end, self.lines
            time.sleep(0.01)


@contextlib.contextmanager
def serving(folder: Path, place: Path, *options: str) -> Iterator[Server]:
    """A server of the portfolio in `folder`, with its socket and state file in `place`; ended with SIGTERM."""
    unix, state = place / "socket", place / "state.json"
    call = [sys.executable, "-m", "reconvene", "serve", str(folder), "--port", "0", "--unix", str(unix)]
    process = subprocess.Popen(
        [*call, "--state", str(state), *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server = Server(process, unix, state, [])
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: server.lines.extend(iter(process.stderr.readline, "")))  # type: ignore[union-attr]
    reader.start()
    try:
        server.wait_for("serving ")
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(30)
        reader.join()


def healthy(server: Server) -> None:
    """It answers, and rightly."""
    with server.client() as client:
        answer = client.post("/v2/models/tiny/infer", json=JSON_REQUEST).json()
    check(answer["model_version"], np.array(answer["outputs"][0]["data"]))


def check(variant: str, output: np.ndarray) -> None:
    """The answer is the one of the variant that claims to have given it."""
    np.testing.assert_allclose(output.ravel(), EXPECTED[variant].ravel(), atol=1e-5)


def parsed(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an HTTP answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer[:100]
    return int(head.split()[1]), body


def answered(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body of the answer that comes next; the server may send it in pieces."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, response.read()
