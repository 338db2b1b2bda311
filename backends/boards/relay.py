"""Between TVM's client and a board: what passes bytes on, and gives up on boards that are gone.

TVM's client waits forever, for a connection as for an answer. So it is connected to a socket of this machine, whose other
end has time-outs. What ended a connection is known there, while TVM's client sees no more than that it ended. It is a
process, not a thread: TVM's destructors talk to the board while they hold Python's lock.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .errors import BoardError, BoardLost
from .replies import MAX_BYTES

__all__ = ["Ending", "Relay"]

_PROGRAM = Path(__file__).with_name("relay_process.py")
_STOP_SECONDS = 5


class Ending(NamedTuple):
    """Why a board ended a connection, and whether another try can end otherwise."""

    reason: str
    final: bool


class Relay:
    """A connection to the server at `host` and `port`, which goes by `name`, for one client at ``127.0.0.1:self.port``."""

    def __init__(
        self,
        host: str,
        port: int,
        name: str,
        connect: float,
        answer: float,
        session: float,
        key: bytes = b"",
        most: int = MAX_BYTES,
    ) -> None:
        """Connects, and proves to know the board's `key`; empty for boards without one.

        The board may take `connect` seconds for that, `answer` for its first word, `session` for all, and say no more than
        `most` bytes at once.

        Raises:
            BoardError: there is no such host, or the board has no key, or another one.
            BoardLost: there is no server, it does not answer, or too many wait for it.
        """
        limits = [str(number) for number in (connect, answer, session, most)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), host, str(port), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.write(f"{key.hex()}\n")
            self._process.stdin.flush()
        word, _, rest = self._process.stdout.readline().strip().partition(" ")
        if word != "port":
            self.close()
            if word == "unknown":
                raise BoardError(f"there is no host '{host}'; check its name")
            if word == "refused":
                raise BoardError(f"board '{name}' {rest}")
            raise BoardLost(f"cannot reach board '{name}': {rest}; is it on, and reconvene-server running?")
        self.port = int(rest)

    def close(self) -> Ending | None:
        """Ends the connection. Returns why the board ended it, if it did."""
        try:
            said, _ = self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        except ValueError:
            return None  # Closed before.
        word, _, reason = said.strip().partition(" ")
        return Ending(reason, word == "refused") if reason else None
