"""Between TVM's client and a board: what passes bytes on, and gives up on boards that are gone.

TVM's client waits for ever, for a connection as for an answer. So it is connected to a socket of this machine, whose other
end has time-outs. What ended a connection is known there, while TVM's client sees no more than that it ended. It is a
process, not a thread: TVM's destructors talk to the board while they hold Python's lock.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .errors import BoardError, BoardLost

__all__ = ["Relay"]

_PROGRAM = Path(__file__).with_name("relay_process.py")
_STOP_SECONDS = 5


class Relay:
    """A connection to the server at `host` and `port`, which goes by `name`, for one client at ``127.0.0.1:self.port``."""

    def __init__(self, host: str, port: int, name: str, connect: float, answer: float, session: float) -> None:
        """Connects. The board may take `connect` seconds for that, `answer` for its first word, `session` for all.

        Raises:
            BoardError: there is no such host.
            BoardLost: there is no server, or it does not answer.
        """
        limits = [str(seconds) for seconds in (connect, answer, session)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), host, str(port), *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        word, _, rest = self._process.stdout.readline().strip().partition(" ")
        if word != "port":
            self.close()
            if word == "unknown":
                raise BoardError(f"there is no host '{host}'; check its name")
            raise BoardLost(f"cannot reach board '{name}': {rest}; is it on, and reconvene-server running?")
        self.port = int(rest)

    def close(self) -> str | None:
        """Ends the connection. Returns why the board ended it, if it did."""
        try:
            said, _ = self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        except ValueError:
            return None  # Closed before.
        return said.partition("fault ")[2].strip() or None
