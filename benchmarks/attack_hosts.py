"""Is a board that sends what no board sends, and counts what comes of it where the board is used.

    python benchmarks/attack_hosts.py docs/results/attack_hosts.json [--inputs 2000] [--seed 0] [--seconds 400]

A process opens sessions as `reconvene run --on rpc://...` does, asks for a number, uploads a file and downloads one. The
board's answers are those of a conversation that is in order, of which one or two are edited: bits, lengths and codes changed,
cut, repeated, exchanged, or followed by requests of the board's own: to begin a session, to call a function, to read or write
memory.

Exit code 1 if the process ended, one session took longer than --patience seconds, an error was no InputError or more than a
line, or TVM's client answered a request of the board.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import random
import socket
import struct
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from attack_bundles import Late, patience
from attacks.edits import edited_bytes
from attacks.sockets import read

from reconvene.backends.boards.place import Place
from reconvene.backends.boards.session import Limits, open_board
from reconvene.frontend.base.errors import InputError

MAGIC = 0xFF271
RETURN, EXCEPTION, COPIED = ANSWERS = (4, 5, 8)
"""Codes of answers."""
GREETING = struct.pack("<ii", MAGIC, 6) + b"server"
OUTCOMES = ("refused", "answered", "fell", "hung", "ended the process", "served the board")


def message(code: int, *values: bytes) -> bytes:
    body = struct.pack("<ii", code, len(values)) + b"".join(values)
    return struct.pack("<Q", len(body)) + body


def number(value: int) -> bytes:
    return struct.pack("<iq", 1, value)


def text(words: bytes, kind: int = 8) -> bytes:
    return struct.pack("<iQ", kind, len(words)) + words


POINTER, NOTHING = struct.pack("<iQ", 4, 0x1000), struct.pack("<i", 0)
TENSOR = struct.pack("<iQiii", 7, 0x1000, 1, 0, 2) + struct.pack("<BBHqqQ", 2, 32, 1, 1, 4, 0)
VOID, HANDLE = message(RETURN, NOTHING), message(RETURN, POINTER)
FIRST, CALL, FREE = 2, 3, 10
"""Codes of requests: for a session, for a call, and to let something go."""

_ABOUT = {"tvm": metadata.version("apache-tvm"), "reconvene": "0", "machine": "x86_64", "name": "b", "cores": 1}
CALLS = (
    message(RETURN, number(65), text(json.dumps(_ABOUT).encode())),
    message(RETURN, number(1), number(4)),
    message(RETURN, number(0), NOTHING),
    message(RETURN, number(1), number(4)),
    message(RETURN, number(66), text(b"abcd", 9)),
)
"""What the calls of a session give, in order: about the board, a number, an upload, its size, a download."""

OTHERS = (
    message(EXCEPTION, text(b"it failed")),
    message(RETURN, number(70), TENSOR, POINTER),
    message(RETURN, number(73), POINTER),
    message(RETURN, number(71), POINTER),
    struct.pack("<Qi", 104, COPIED) + bytes(100),
)
REQUESTS = (
    struct.pack("<QiQ", 21, 2, 5) + b"0.8.0" + struct.pack("<i", 0),
    message(9, text(b"ffi.ModuleLoadFromFile")),
    struct.pack("<QiQi", 16, 3, 0x1000, 0),
    struct.pack("<QiQiiiBBHqQQ", 56, 6, 0x1000, 1, 0, 1, 2, 32, 1, 4, 0, 16),
    message(10, POINTER),
    struct.pack("<Qi", 4, 1),
)


def edited(answer: bytes, source: random.Random) -> bytes:
    kind = source.randrange(7)
    if kind == 0:
        return edited_bytes(answer, source)
    if kind == 1:
        return answer[: source.randrange(len(answer))] + source.choice((b"", source.randbytes(source.randrange(40))))
    if kind == 2:
        return answer * 2
    if kind == 3:
        return source.choice((GREETING, VOID, HANDLE, *CALLS, *OTHERS))
    if kind == 4:
        place = source.randrange(0, max(1, len(answer) - 8), 4)
        odd = source.choice((0, 1, 7, 68, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 32, 1 << 40, (1 << 63) + 1, (1 << 64) - 1))
        size = source.choice((4, 8))
        return answer[:place] + (odd % (1 << 8 * size)).to_bytes(size, "little") + answer[place + size :]
    if kind == 5:
        return source.choice(REQUESTS) + source.choice((answer, b""))
    return answer + source.choice(REQUESTS)


class Script:
    """What a board sends in conversation `index` of a seed, by the requests that it gets; -1 is the one that is in order."""

    def __init__(self, seed: int, index: int) -> None:
        self._source = random.Random(f"{seed}.{index}")
        # What comes late is seen only where all before it is in order.
        self._edited = (
            set() if index < 0 else {self._source.randrange(14) for _ in range(self._source.choice((1, 1, 2)))}
        )
        self._sent, self._calls = 0, iter(CALLS)

    def greeting(self) -> bytes:
        return self._perhaps_edited(GREETING)

    def answer(self, code: int) -> bytes:
        """To a request with this code."""
        right = next(self._calls, VOID) if code == CALL else VOID if code in (FIRST, FREE) else HANDLE
        return self._perhaps_edited(right)

    def _perhaps_edited(self, answer: bytes) -> bytes:
        self._sent += 1
        return edited(answer, self._source) if self._sent - 1 in self._edited else answer


class Board:
    """Listens, and has one conversation with each client; `next` is the index of the next one, -1 of one that is not edited."""

    def __init__(self, seed: int) -> None:
        self._seed, self.next = seed, -1
        self.served: list[int] = []
        """Conversations in which the client did what the board asked for."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            client, _ = self._listener.accept()
            client.settimeout(4)
            with client, contextlib.suppress(OSError, EOFError):
                self._talk(client, self.next)

    def _talk(self, client: socket.socket, index: int) -> None:
        script = Script(self._seed, index)
        read(client, struct.unpack("<ii", read(client, 8))[1])
        client.sendall(script.greeting())
        while True:
            size, code = struct.unpack("<Qi", read(client, 12))
            read(client, size - 4)
            if code in ANSWERS:
                self.served.append(index)
            client.sendall(script.answer(code))


def attempt(port: int, limit: float) -> tuple[str, str]:
    """What came of a session, and what was said."""
    limits = Limits(connect=5, answer=1, session=1, tries=1)
    try:
        with patience(limit), open_board(Place("rpc", "127.0.0.1", port), limits) as board:
            board.count("reconvene.bytes", "name")
            board.upload(b"1234")
            board.download("name")
            board.clean()
    except InputError as error:
        return "refused" if str(error).isprintable() and len(str(error)) < 1000 else "fell", str(error)
    except Late:
        return "hung", ""
    except BaseException as error:
        return "fell", f"{type(error).__name__}: {error}"
    return "answered", ""


def sessions(port: int, limit: float, pipe: Any) -> None:
    while pipe.recv():
        pipe.send(attempt(port, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=400, help="begin nothing new after that time")
    parser.add_argument("--patience", type=float, default=20, help="seconds that one may take")
    options = parser.parse_args()
    board, start = Board(options.seed), time.monotonic()
    outcomes: collections.Counter[str] = collections.Counter()
    faults: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    while board.next < options.inputs and time.monotonic() - start < options.seconds:
        here, there = context.Pipe()
        process = context.Process(target=sessions, args=(board.port, options.patience, there))
        process.start()
        there.close()
        with contextlib.suppress(EOFError, BrokenPipeError):
            while board.next < options.inputs and time.monotonic() - start < options.seconds:
                here.send(True)
                if not here.poll(options.patience + 10):
                    process.kill()  # What hangs in TVM does not hear of time that is up.
                    process.join()
                    break
                outcome, said = here.recv()
                note(outcomes, faults, board, outcome, said)
            here.send(False)
        process.join()
        if process.exitcode:
            note(outcomes, faults, board, "ended the process", f"exit code {process.exitcode}")
    data = {
        "inputs": board.next,
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "faults": faults,
    }
    options.output.write_text(json.dumps(data, indent=1) + "\n")
    print(json.dumps(data["outcomes"]))
    return 1 if faults else 0


def note(
    outcomes: collections.Counter[str], faults: list[dict[str, Any]], board: Board, outcome: str, said: str
) -> None:
    if board.next in board.served:
        outcome = "served the board"
    if board.next >= 0:
        outcomes[outcome] += 1
    if outcome not in ("refused", "answered") or (board.next < 0 and outcome != "answered"):
        faults.append({"number": board.next, "outcome": outcome, "said": said[:300]})
    board.next += 1


if __name__ == "__main__":
    sys.exit(main())
