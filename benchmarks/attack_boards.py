"""Sends a board's server what no client sends, and counts what comes of it.

    python benchmarks/attack_boards.py docs/results/attack_boards.json [--inputs 2000] [--seed 0] [--seconds 300]

The server is ours, compiled with the sanitisers of addresses and undefined behaviour, once with a key and once without, and
serves on the loopback address. TVM's libraries in it are those of the wheel, which have no sanitisers. Inputs are bytes of no
kind, greetings that are cut, changed, repeated or of other lengths, proofs that are wrong, overheard or of the board's kind,
and, from clients that are let in, sessions of changed and cut messages. After every fiftieth, an honest client must be served
within --patience seconds. At the end the server stops when told to.

Exit code 1 if a sanitiser reported something, the server ended or did not answer, somebody without the key was let in, a file
was left, or a line of the log had bytes that are no text.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks.edits import edited_bytes
from attacks.servers import SANITISERS, build_server

from reconvene.backends.boards.errors import BoardError
from reconvene.backends.boards.place import Place
from reconvene.backends.boards.relay_process import KEYED, proof
from reconvene.backends.boards.session import Limits, open_board

MAGIC = struct.pack("<i", 0xFF271)
HANDSHAKE_SECONDS, READ_SECONDS = 0.5, 0.3


class Attacked:
    """A running server, and what it has said."""

    def __init__(self, program: Path, folder: Path, key: bytes, name: str) -> None:
        self.key, self.scratch, self.log = key, folder / f"{name}-files", folder / f"{name}.log"
        self.scratch.mkdir()
        options = []
        if key:
            (folder / "key").write_bytes(key)
            (folder / "key").chmod(0o600)
            options = ["--key-file", str(folder / "key")]
        limits = ["--handshake", str(HANDSHAKE_SECONDS), "--idle", "1", "--timeout", "10"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(program), "--port", "0", *limits, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **SANITISERS, "TMPDIR": str(self.scratch)},
            )
        while b"listening on" not in self.log.read_bytes():
            time.sleep(0.01)
        self.port = int(self.log.read_bytes().rpartition(b":")[2])

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 5)
        client.settimeout(READ_SECONDS)
        return client

    def stop(self) -> int | None:
        """Its exit code; None if it does not stop."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None


def greeting(source: random.Random) -> bytes:
    name = b"client:" + source.randbytes(source.randrange(20)).replace(b"\0", b"")
    return MAGIC + struct.pack("<i", len(name)) + name


def message(source: random.Random) -> bytes:
    """What a session may begin with: a length, a code, and arguments that fit neither."""
    body = struct.pack("<i", source.choice((1, 2, 3, 4, 5, 6, 7, 10, 20, 99, -1))) + source.randbytes(
        source.randrange(64)
    )
    if source.random() < 0.5:
        # The first call that a client makes: TVM's number, its version, and how sessions are made.
        body = struct.pack("<iQ", 1, 6) + b"0.27.0" + struct.pack("<ii", 0, source.randrange(4)) + body[4:]
    claimed = source.choice((len(body), len(body), 0, 1, len(body) + 1, 1 << 30, 1 << 40, 1 << 63, (1 << 64) - 1))
    return struct.pack("<Q", claimed) + body


def receive(client: socket.socket, size: int) -> bytes:
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < size and (part := client.recv(size - len(found))):
            found += part
    return found


def challenged(client: socket.socket) -> tuple[bytes, bytes]:
    """The random bytes of both sides."""
    ours = secrets.token_bytes(32)
    client.sendall(KEYED + ours)
    return ours, receive(client, 36)[4:]


def noise(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    client.sendall(
        source.choice((b"", KEYED, MAGIC, b"GET / HTTP/1.1\r\n\r\n")) + source.randbytes(source.randrange(2000))
    )
    return False


def changed(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    """A greeting as it should be, edited."""
    said = greeting(source) * source.choice((1, 1, 3))
    client.sendall(edited_bytes(said, source)[: source.randrange(1, len(said) + 1)])
    return False


def lengths(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    length = source.choice((-1, -(1 << 31), 511, 512, 513, 1 << 16, (1 << 31) - 1))
    client.sendall(MAGIC + struct.pack("<i", length) + b"c" * source.randrange(600))
    return False


def flipped(proof: bytes, bit: int, kept: int = 32) -> bytes:
    """The proof with a bit flipped; or cut after `kept` bytes and one that is wrong, lest what follows should complete it."""
    place = bit // 8 if kept == 32 else kept
    return proof[:place] + bytes([proof[place] ^ 1 << bit % 8]) + (proof[place + 1 :] if kept == 32 else b"")


def wrong_proof(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    """True if the server takes it."""
    ours, theirs = challenged(client)
    right = proof(server.key, b"reconvene client", ours, theirs) if theirs and server.key else bytes(32)
    said = source.choice(
        (
            flipped(right, source.randrange(256)),
            flipped(right, source.randrange(256), source.randrange(32)),
            bytes(32),
            source.randbytes(32),
            proof(server.key, b"reconvene board\0", ours, theirs),
            proof(server.key, b"reconvene client", theirs, ours),
            proof(server.key, b"reconvene client", ours, ours),
            proof(b"", b"reconvene client", ours, theirs),
        )
    )
    client.sendall(said + greeting(source) + message(source))
    return receive(client, 1) == b"\0"


_overheard: dict[int, bytes] = {}


def replayed(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    """All that a client said that was let in, once more. True if the server takes it again."""
    if server.port not in _overheard:
        with server.connect() as honest:
            ours, theirs = challenged(honest)
            said = proof(server.key, b"reconvene client", ours, theirs) if server.key else b""
            honest.sendall(said)
            receive(honest, 33)
        _overheard[server.port] = KEYED + ours + said + greeting(source)
    client.sendall(_overheard[server.port])
    return receive(client, 37)[36:] == b"\0"


def session(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    """Of a client that is let in, which then talks nonsense."""
    if server.key:
        ours, theirs = challenged(client)
        client.sendall(proof(server.key, b"reconvene client", ours, theirs))
        receive(client, 33)
    client.sendall(MAGIC + struct.pack("<i", 7) + b"client:")
    receive(client, 4 + 4 + 7)
    for _ in range(source.randrange(1, 4)):
        said = message(source)
        client.sendall(said[: source.randrange(1, len(said) + 1)] if source.random() < 0.3 else said)
    return False


ATTACKS = {
    "no greeting": (0.25, noise),
    "changed greeting": (0.25, changed),
    "lengths": (0.1, lengths),
    "wrong proof": (0.2, wrong_proof),
    "overheard": (0.1, replayed),
    "session": (0.1, session),
}


def honest(server: Attacked, patience: float) -> bool:
    """Whether a client with the key is served, and one without, where there is one, is not."""
    limits = Limits(connect=patience, answer=patience, session=30, tries=1)
    place = Place("rpc", "127.0.0.1", server.port, secret=server.key)
    try:
        with open_board(place, limits) as board:
            served = bool(board.about["machine"]) and bool(board.upload(b"model"))
    except BoardError:
        return False
    if server.key:
        with contextlib.suppress(BoardError), open_board(Place("rpc", "127.0.0.1", server.port), limits):
            return False
    return served


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Attacked]]:
    program = folder / "reconvene-server"
    build_server(program, folder, sanitised=True)
    servers = [
        Attacked(program, folder, key, name)
        for key, name in ((secrets.token_bytes(32).hex().encode(), "keyed"), (b"", "open"))
    ]
    try:
        yield servers
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def sanitisers(lines: list[bytes]) -> tuple[list[str], int]:
    """Reports in a log; and how many tell only that TVM's library wanted more memory than there is, for a length that stands
    within a message. That is an exception there, and the end of its session.
    """
    reports, claims = [], 0
    for number, line in enumerate(lines):
        if b"ERROR: " not in line and b"runtime error" not in line:
            continue
        wanted = b"out of memory trying to allocate" in line or b"exceeds maximum supported size" in line
        if wanted and any(b"libtvm" in frame for frame in lines[number + 1 : number + 4]):
            claims += 1
        else:
            reports.append(line.decode(errors="replace")[:200])
    return reports, claims


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=300, help="begin nothing new after that time")
    parser.add_argument("--patience", type=float, default=15, help="seconds until an honest client is served")
    options = parser.parse_args()
    kinds: collections.Counter[str] = collections.Counter()
    found: collections.Counter[str] = collections.Counter()
    reports: list[str] = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary, running(Path(temporary)) as servers:
        for number in range(options.inputs):
            if time.monotonic() - start > options.seconds:
                break
            source, server = random.Random(f"{options.seed}.{number}"), servers[number % 2]
            kind = source.choices(list(ATTACKS), [share for share, _ in ATTACKS.values()])[0]
            kinds[kind] += 1
            with contextlib.suppress(OSError), server.connect() as client:
                let_in = ATTACKS[kind][1](server, client, source)
                found["let in without the key"] += let_in
                reports += [f"{kind}, input {number}, was let in"] * let_in
                if source.random() < 0.5:
                    client.shutdown(socket.SHUT_WR)
                    receive(client, 64)
            if number % 50 in (48, 49):
                found["honest clients"] += 1
                found["honest clients not served"] += not honest(server, options.patience)
        for server in servers:
            found["not served at the end"] += not honest(server, options.patience)
            ended = server.process.poll() is not None
            found["servers that ended"] += ended
            found["servers that did not stop"] += not ended and server.stop() != 0
            lines = server.log.read_bytes().splitlines()
            told, claims = sanitisers(lines)
            reports += told
            found["reports of sanitisers"] += len(told)
            found["sessions that TVM ended for want of memory"] += claims
            found["lines that are no text"] += sum(
                not (line.isascii() and line.decode().isprintable()) for line in lines
            )
            found["lines of the log"] += len(lines)
            found["files left"] += len(list(server.scratch.iterdir()))
    good = {"honest clients", "lines of the log", "sessions that TVM ended for want of memory"}
    faults = {name: count for name, count in found.items() if count and name not in good}
    data: dict[str, Any] = {
        "inputs": sum(kinds.values()),
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        "kinds": dict(sorted(kinds.items())),
        "found": dict(found),
        "reports": sorted(set(reports))[:10],
        "sanitised": "reconvene-server; TVM's libraries are those of the wheel, without sanitisers",
    }
    options.output.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data["found"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
