"""The process of a relay: joins a socket of this machine to a board until one of them ends. Run by relay.py as a file.

The first line of stdin is the board's key in hexadecimal, empty for boards without one.
On stdout: ``port N``, ``unknown`` (no such host), ``lost REASON`` or ``refused REASON`` (another try does not help); and when
the board ended the session, ``fault REASON`` or ``refused REASON``.
It stops when its stdin closes, so it never outlives whoever started it. It runs isolated, so its neighbour `replies` is not
found by name.
"""

from __future__ import annotations

import contextlib
import hmac
import importlib.util
import secrets
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

PART = 1 << 18
SILENT_SECONDS = 20
"""After which a machine that does not even acknowledge is taken for dead."""

KEYED, WANTS_KEY, HAS_NO_KEY = b"RCV1", b"RCV2", b"RCV3"
NONCE = PROOF = 32
WELCOME, WRONG_KEY, BUSY = range(3)
"""Of runtime/rpc_greeting.h."""


class Refused(Exception):
    """The board will not have this client, now or later."""


def main(
    host: str, port: int, connect_seconds: float, answer_seconds: float, session_seconds: float, most: int
) -> None:
    key = bytes.fromhex(sys.stdin.readline().strip())
    try:
        board = socket.create_connection((host, port), connect_seconds)
        guard(board)
        if key:
            greet(board, key, time.monotonic() + answer_seconds)
    except (socket.gaierror, UnicodeError):
        tell("unknown")
        return
    except Refused as error:
        tell(f"refused {error}")
        return
    except OSError as error:
        tell(f"lost {'it does not answer' if isinstance(error, TimeoutError) else error.strerror or error}")
        return
    with board, socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        tell(f"port {listener.getsockname()[1]}")
        ready, _, _ = select.select([listener, sys.stdin], [], [], answer_seconds)
        if listener not in ready:
            return
        client, _ = listener.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                fault = pass_on(client, board, neighbour("replies").Replies(most), answer_seconds, session_seconds)
            except Refused as error:
                fault = f"refused {error}"
            except OSError as error:
                fault = f"fault is gone: {error.strerror or error}"
            if fault is not None:
                # Before the client sees the end of its connection, and asks why.
                tell(fault)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


def greet(board: socket.socket, key: bytes, end: float) -> None:
    """Proves to the board that this client knows the key, and has the board prove it.

    Raises:
        Refused: one of the two cannot.
        OSError: the board does not answer by `end`, or breaks off; or too many wait for it.
    """
    ours = secrets.token_bytes(NONCE)
    board.sendall(KEYED + ours)
    head = received(board, 4, end)
    if head == HAS_NO_KEY:
        raise Refused("has no key; leave out --key-file, or start it with --key-file")
    if head != KEYED:
        raise Refused("is no reconvene-server that has a key; start one there, with --key-file")
    theirs = received(board, NONCE, end)
    board.sendall(proof(key, b"reconvene client", ours, theirs))
    status = received(board, 1, end)
    answer = received(board, PROOF, end)
    if status[0] == WRONG_KEY:
        raise Refused("has another key; give the file that it was started with")
    if not hmac.compare_digest(answer, proof(key, b"reconvene board" + status, ours, theirs)):
        raise Refused("does not know the key: it is not the board that it seems to be")
    if status[0] != WELCOME:
        raise ConnectionError("it is busy, and others wait for it")


def proof(key: bytes, role: bytes, client: bytes, board: bytes) -> bytes:
    return hmac.digest(key, role + client + board, "sha256")


def received(board: socket.socket, size: int, end: float) -> bytes:
    """`size` bytes that come before the moment `end`."""
    data = b""
    while len(data) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        board.settimeout(left)
        part = board.recv(size - len(data))
        if not part:
            raise ConnectionError("it closed the connection")
        data += part
    board.settimeout(SILENT_SECONDS)
    return data


def neighbour(name: str) -> Any:
    """The file of that name beside this one, as a module."""
    found = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def pass_on(
    client: socket.socket, board: socket.socket, replies: Any, answer_seconds: float, session_seconds: float
) -> str | None:
    """Why the board's end is over, or None if it was the client or its process that ended.

    Args:
        replies: reads what the board sends, before the client does.
    """
    start, answered = time.monotonic(), False
    while True:
        spent = time.monotonic() - start
        if spent > session_seconds:
            return f"fault took longer than the {session_seconds:g} seconds of a session"
        if not answered and spent > answer_seconds:
            return f"fault did not answer in {answer_seconds:g} seconds; it is busy with another client, or hangs"
        left = (session_seconds if answered else min(answer_seconds, session_seconds)) - spent
        ready, _, _ = select.select([client, board, sys.stdin], [], [], left + 0.01)
        if sys.stdin in ready:
            return None
        if board in ready:
            part = board.recv(PART)
            if not part:
                return "fault closed the connection"
            part = checked(part, replies, answered)
            answered = answered or bool(part)
            client.sendall(part)
        if client in ready:
            part = client.recv(PART)
            if not part:
                return None
            board.sendall(part)


def checked(part: bytes, replies: Any, answered: bool) -> bytes:
    """What of `part`, which the board sent, goes on to the client. Raises Refused if it makes no sense."""
    try:
        passed: bytes = replies.passed(part)
    except ValueError as error:
        raise Refused(f"answers what makes no sense: {error}") from None
    if not answered and passed[:4] == WANTS_KEY:
        raise Refused("lets only those in who know its key; give it with --key-file")
    return passed


def guard(board: socket.socket) -> None:
    """Lets the system find out when the machine at the other end is gone."""
    board.settimeout(SILENT_SECONDS)
    board.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    board.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            board.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    _host, _port, _connect, _answer, _session, _most = sys.argv[1:]
    main(_host, int(_port), float(_connect), float(_answer), float(_session), int(_most))
