"""The process of a relay: joins a socket of this machine to a board until one of them ends. Run by relay.py as a file.

On stdout: ``port N``, ``unknown`` (no such host) or ``lost REASON``; and when the board ended the session, ``fault REASON``.
It stops when its stdin closes, so it never outlives whoever started it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time

PART = 1 << 18
SILENT_SECONDS = 20
"""After which a machine that does not even acknowledge is taken for dead."""


def main(host: str, port: int, connect_seconds: float, answer_seconds: float, session_seconds: float) -> None:
    try:
        board = socket.create_connection((host, port), connect_seconds)
    except socket.gaierror:
        tell("unknown")
        return
    except OSError as error:
        tell(f"lost {'it does not answer' if isinstance(error, TimeoutError) else error.strerror or error}")
        return
    guard(board)
    with board, socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        tell(f"port {listener.getsockname()[1]}")
        ready, _, _ = select.select([listener, sys.stdin], [], [], answer_seconds)
        if listener not in ready:
            return
        client, _ = listener.accept()
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                fault = pass_on(client, board, answer_seconds, session_seconds)
            except OSError as error:
                fault = f"is gone: {error.strerror or error}"
            if fault is not None:
                # Before the client sees the end of its connection, and asks why.
                tell(f"fault {fault}")
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


def pass_on(client: socket.socket, board: socket.socket, answer_seconds: float, session_seconds: float) -> str | None:
    """Why the board's end is over, or None if it was the client or its process that ended."""
    start, answered = time.monotonic(), False
    while True:
        spent = time.monotonic() - start
        if spent > session_seconds:
            return f"took longer than the {session_seconds:g} seconds of a session"
        if not answered and spent > answer_seconds:
            return f"did not answer in {answer_seconds:g} seconds; it is busy with another client, or hangs"
        left = (session_seconds if answered else min(answer_seconds, session_seconds)) - spent
        ready, _, _ = select.select([client, board, sys.stdin], [], [], left + 0.01)
        if sys.stdin in ready:
            return None
        if board in ready:
            part = board.recv(PART)
            if not part:
                return "closed the connection"
            answered = True
            client.sendall(part)
        if client in ready:
            part = client.recv(PART)
            if not part:
                return None
            board.sendall(part)


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
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:6]))
