"""Sends a board's server what no client sends, and counts what comes of it.

    python benchmarks/attack_boards.py docs/results/attack_boards.json [--runtime source|wheel] [--inputs 2000] [--seed 0]

The server is compiled with the sanitisers of addresses and undefined behaviour, and TVM's runtime in it as well; that of the
wheel has none. It serves on the loopback address, once with a key and once without. Inputs are bytes of no kind, greetings that
are cut, changed, repeated or of other lengths, proofs that are wrong, overheard or of the board's kind, and, from clients that
are let in, sessions with messages of which a part is changed, dropped, repeated or cut, or claims what is not so. After every
fiftieth, an honest client must be served within --patience seconds. At the end the server stops when told to.

A client that is let in may name any address of its session's memory, and end the session so. Messages with wrong addresses go
to a third server, of which only that it outlives them is asked; in all others addresses are those that the server gave.

Exit code 1 if a sanitiser reported something, a session was ended by a signal, the server ended or did not answer, somebody
without the key was let in, a file was left, or a line of the log had bytes that are no text.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attacks import messages
from attacks.edits import edited_bytes
from attacks.servers import ENVIRONMENT, build_server, sanitised_runtime

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
                env={**os.environ, **ENVIRONMENT, "TMPDIR": str(self.scratch)},
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
    body = struct.pack("<i", source.choice((*range(22), 99, -1))) + source.randbytes(source.randrange(64))
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


def received_message(client: socket.socket) -> bytes:
    """Empty if none comes."""
    head = receive(client, 8)
    return receive(client, min(int.from_bytes(head, "little"), 1 << 20)) if len(head) == 8 else b""


def begun(server: Attacked, client: socket.socket) -> list[tuple[int, int]]:
    """The session of a client that is let in: the addresses of functions, each with how many arguments it has to have."""
    if server.key:
        ours, theirs = challenged(client)
        client.sendall(proof(server.key, b"reconvene client", ours, theirs))
        receive(client, 33)
    client.settimeout(5)  # Another one may be served.
    client.sendall(MAGIC + struct.pack("<i", 7) + b"client:")
    receive(client, 4 + 4 + 7)
    client.sendall(messages.encoded(messages.first_message()))
    received_message(client)
    handles = []
    for name, least in messages.FUNCTIONS.items():
        client.sendall(messages.encoded(messages.lookup(name)))
        handles.append((messages.found_handle(received_message(client)), least))
    client.settimeout(READ_SECONDS)
    return handles


def nonsense(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    """Of a client that is let in, and then keeps to no protocol."""
    begun(server, client)
    for _ in range(source.randrange(1, 4)):
        said = message(source)
        client.sendall(said[: source.randrange(1, len(said) + 1)] if source.random() < 0.3 else said)
    return False


def session(server: Attacked, client: socket.socket, source: random.Random, *, addresses: bool = False) -> bool:
    """Messages as they should be, and one that is not."""
    handles = begun(server, client)
    for _ in range(source.randrange(4)):
        client.sendall(messages.encoded(messages.message(source, handles)))
        received_message(client)
    client.sendall(messages.changed(messages.message(source, handles), source, addresses=addresses))
    received_message(client)
    return False


def addresses(server: Attacked, client: socket.socket, source: random.Random) -> bool:
    return session(server, client, source, addresses=True)


ATTACKS = {
    "no greeting": (0.15, noise),
    "changed greeting": (0.15, changed),
    "lengths": (0.1, lengths),
    "wrong proof": (0.15, wrong_proof),
    "overheard": (0.05, replayed),
    "session of nonsense": (0.1, nonsense),
    "session": (0.25, session),
    "wrong addresses": (0.05, addresses),
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
def running(folder: Path, runtime: str) -> Iterator[list[Attacked]]:
    """Servers with a key, without, and with one for wrong addresses."""
    program = folder / "reconvene-server"
    build_server(program, folder, sanitised_runtime() if runtime == "source" else ())
    key = secrets.token_bytes(32).hex().encode()
    servers = [Attacked(program, folder, *chosen) for chosen in ((key, "keyed"), (b"", "open"), (key, "addresses"))]
    try:
        yield servers
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


def reports(lines: list[bytes]) -> list[tuple[int, str]]:
    """What sanitisers say in a log, each with the process of which they say it; 0 where they do not tell."""
    found = []
    for number, line in enumerate(lines):
        if b"ERROR: " not in line and b"runtime error" not in line:
            continue
        process = re.match(rb"==(\d+)==", line)
        where = [frame.strip() for frame in lines[number + 1 : number + 12] if frame.strip().startswith(b"#")]
        told = re.sub(r"(?<!\S)/\S*/", "", b" ".join([line, *where[:6]]).decode(errors="replace"))
        found.append((int(process[1]) if process else 0, told[:1000]))
    return found


def attack(
    servers: list[Attacked], options: argparse.Namespace, found: collections.Counter[str]
) -> tuple[Any, list[str]]:
    """Sends the inputs. Returns how many of each kind there were, and who was let in without the key."""
    kinds: collections.Counter[str] = collections.Counter()
    told: list[str] = []
    start = time.monotonic()
    for number in range(options.inputs):
        if time.monotonic() - start > options.seconds:
            break
        source = random.Random(f"{options.seed}.{number}")
        kind = source.choices(list(ATTACKS), [share for share, _ in ATTACKS.values()])[0]
        server = servers[2 if kind == "wrong addresses" else number % 2]
        kinds[kind] += 1
        with contextlib.suppress(OSError), server.connect() as client:
            try:
                let_in = ATTACKS[kind][1](server, client, source)
            except ValueError as error:
                let_in = False
                found["sessions that did not begin"] += 1
                told.append(f"{kind}, input {number}: {error}")
            found["let in without the key"] += let_in
            told += [f"{kind}, input {number}, was let in"] * let_in
            if source.random() < 0.5:
                client.shutdown(socket.SHUT_WR)
                receive(client, 64)
        if number % 50 >= 47:
            asked = servers[number % 50 - 47]
            found["honest clients"] += 1
            found["honest clients not served"] += not honest(asked, options.patience)
    return dict(sorted(kinds.items())), told


def judge(server: Attacked, patience: float, found: collections.Counter[str], *, addresses: bool) -> list[str]:
    """Stops the server and counts what is in its log. Returns the reports of sanitisers that ought not to be there."""
    found["not served at the end"] += not honest(server, patience)
    ended = server.process.poll() is not None
    found["servers that ended"] += ended
    found["servers that did not stop"] += not ended and server.stop() != 0
    lines = server.log.read_bytes().splitlines()
    told = reports(lines)
    # A pipe that broke is a client that is gone: the wheel's runtime writes to it.
    signals = sum(bool(re.search(rb"session ended by signal (?!%d$)" % signal.SIGPIPE, line)) for line in lines)
    if addresses:
        found["sessions that wrong addresses ended"] += signals + len(told)
        told = [(process, text) for process, text in told if process == server.process.pid]
    else:
        found["sessions ended by a signal"] += signals
    found["reports of sanitisers"] += len(told)
    found["messages refused"] += sum(b"Bad message" in line for line in lines)
    found["lines that are no text"] += sum(not (line.isascii() and line.decode().isprintable()) for line in lines)
    found["lines of the log"] += len(lines)
    found["files left"] += len(list(server.scratch.iterdir()))
    return [text for _, text in told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--runtime", choices=("source", "wheel"), default="source")
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600, help="begin nothing new after that time")
    parser.add_argument("--patience", type=float, default=15, help="seconds until an honest client is served")
    options = parser.parse_args()
    found: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as temporary, running(Path(temporary), options.runtime) as servers:
        start = time.monotonic()
        kinds, told = attack(servers, options, found)
        for number, server in enumerate(servers):
            told += judge(server, options.patience, found, addresses=number == 2)
    good = {"honest clients", "lines of the log", "messages refused", "sessions that wrong addresses ended"}
    data: dict[str, Any] = {
        "inputs": sum(kinds.values()),
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        "kinds": kinds,
        "found": dict(found),
        "reports": sorted(set(told))[:10],
        "sanitised": "reconvene-server" + (" and TVM's runtime" if options.runtime == "source" else ""),
    }
    options.output.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data["found"]))
    return 1 if any(count for name, count in found.items() if name not in good) else 0


if __name__ == "__main__":
    sys.exit(main())
