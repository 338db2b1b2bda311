"""Accepting connections: how many there are, which one goes for another, and what happens without file descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from ...frontend.base.errors import InputError
from ...frontend.base.systems import most_files
from .connection import Connection, refusal
from .limits import Limits

__all__ = ["Gate", "most_connections"]

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PAUSE_SECONDS = 0.1
"""Seconds without accepting after descriptors ran out."""

_CALM_SECONDS = 5.0
"""Seconds without such a lack after which it counts as over."""

_RESERVE = 32
"""Descriptors that are left for files: those of a variant that is loaded, the state, the machine's sensors."""


def most_connections(limits: Limits) -> int:
    """Connections that may be open at a time: as many as `limits` allows, or as this process may open.

    Raises:
        InputError: it may open too few files to serve anybody.
    """
    allowed = most_files()
    if allowed is None:
        return limits.connections
    left = allowed - len(os.listdir("/dev/fd")) - _RESERVE
    if left < 1:
        raise InputError(f"this process may open {allowed} files, too few to serve; allow more with ulimit -n")
    return min(limits.connections, left)


class Gate:
    """Lets clients in.

    Args:
        connections: those that are open, which each one enters and leaves by itself.
        make: makes another one.
        most: how many may be open at a time.
        note: called with the name of a limit that was met, see `limits.COUNTED`.
        say: takes lines for whoever runs the server.
    """

    def __init__(
        self,
        connections: set[Connection],
        make: Callable[[], Connection],
        most: int,
        note: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._connections, self._make, self._most = connections, make, most
        self._note, self._say = note, say
        self._lack: float | None = None
        """When descriptors last ran out; None if that is over."""
        self._tasks: list[asyncio.Task[None]] = []

    def open(self, listeners: Sequence[socket.socket]) -> None:
        """Begins to accept. The event loop must run."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            listener.setblocking(False)
            self._tasks.append(loop.create_task(self._accept(listener)))

    async def close(self) -> None:
        """Accepts no more; what is open stays so."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def sweep(self) -> None:
        """Ends what has lasted too long. To be called several times a second."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._connections):
            connection.sweep(now)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                # Else that client has gone already.
                continue
            if self._lack is not None and loop.time() - self._lack >= _CALM_SECONDS:
                self._lack = None
                self._say("there are file descriptors for all connections again")
            if len(self._connections) >= self._most and not self._make_room():
                self._turn_away(client)
                continue
            try:
                if client.family != socket.AF_UNIX:
                    # An answer is two packets, the second of which would wait for the client's word on the first.
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.connect_accepted_socket(self._make, client)
            except OSError:
                client.close()

    def _exhausted(self, error: OSError) -> None:
        """Says so once, and closes what is easily spared, so that the next client finds a descriptor."""
        if self._lack is None:
            self._say(f"connections wait or are closed for others: {error.strerror}; allow more files with ulimit -n")
        self._lack = asyncio.get_running_loop().time()
        self._note("descriptors")
        self._make_room()

    def _make_room(self) -> bool:
        """Closes the connection that is spared most easily; False if each one waits for an answer.

        Of several, it is one of the client that has most of them, and the one that has been as it is the longest.
        """
        now = asyncio.get_running_loop().time()
        peers = Counter(connection.peer for connection in self._connections)
        crowded = sum(connection.starting for connection in self._connections) > len(self._connections) // 4
        found = [
            (rank, -peers[connection.peer], connection.since, index, connection)
            for index, connection in enumerate(self._connections)
            if (rank := connection.spare(now, crowded)) is not None
        ]
        if not found:
            return False
        *_, connection = min(found)
        # It leaves by itself only after the next turn of the event loop.
        self._connections.discard(connection)
        connection.transport.abort()
        self._note("connections")
        return True

    def _turn_away(self, client: socket.socket) -> None:
        self._note("connections")
        with client, contextlib.suppress(OSError):
            client.send(refusal(503, "too many connections are open; try again later"))
