"""The service on sockets: TCP, a Unix socket, or both, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn

from ...frontend.base.errors import InputError
from .app import make_app
from .connection import Connection
from .gate import Gate, most_connections
from .service import Service

__all__ = ["Address", "listening", "run_server"]

_BACKLOG = 2048


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host, port: for TCP; any free port if it is 0, no TCP if it is None.
        unix: path of a Unix socket, which only this user may open.
    """

    host: str = "127.0.0.1"
    port: int | None = 8000
    unix: Path | None = None


@contextmanager
def listening(address: Address) -> Iterator[tuple[socket.socket, ...]]:
    """Sockets that accept connections at `address`; a Unix socket's file goes when the block ends.

    Raises:
        InputError: the port or the path is taken, or not ours to take.
    """
    sockets: list[socket.socket] = []
    try:
        if address.port is not None:
            sockets.append(_tcp(address.host, address.port))
        if address.unix is not None:
            sockets.append(_unix(address.unix))
        if not sockets:
            raise InputError("there is nothing to listen on; give a port or a Unix socket")
        yield tuple(sockets)
    finally:
        for found in sockets:
            found.close()
            if found.family == socket.AF_UNIX and address.unix is not None:
                address.unix.unlink(missing_ok=True)


def run_server(
    service: Service,
    sockets: Sequence[socket.socket],
    ready: Callable[[Sequence[str]], None] = lambda places: None,
) -> None:
    """Serves until SIGTERM or SIGINT; then accepts nothing more, answers what is under way, and returns.

    Args:
        ready: called with the URLs as soon as connections are accepted.

    Raises:
        InputError: this process may open too few files.
    """
    limits = service.settings.limits
    most = most_connections(limits)
    # uvicorn's own lines are of single connections: clients could fill a disk with them.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        http=Connection,
        timeout_graceful_shutdown=max(1, round(limits.timeout)),
        proxy_headers=False,
        ws="none",
    )
    # Before the server has the sockets: it closes them.
    places = [_url(found) for found in sockets]
    _Server(config, service, most, lambda: ready(places)).run(list(sockets))


class _Server(uvicorn.Server):
    """uvicorn's server with a gate of ours, since asyncio's own logs a line for every connection it has no descriptor for.

    uvicorn would end the process with the signal it was told to end by; this one returns.
    """

    def __init__(self, config: uvicorn.Config, service: Service, most: int, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._ready = service, ready
        connections = cast("set[Connection]", self.server_state.connections)
        self._gate = Gate(connections, self._connection, most, service.met, service.say)
        service.metrics.connections(lambda: len(connections))

    def _connection(self) -> Connection:
        service = self._service
        return Connection(self.config, self.server_state, self.lifespan.state, service.settings.limits, service.met)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._fault)
        await super().startup([])
        if self.started:
            self._gate.open(sockets or [])
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        self._gate.sweep()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._gate.close()
        await super().shutdown(sockets)

    def _fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._service.fault(context.get("exception") or RuntimeError(context["message"]))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        handlers = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _url(found: socket.socket) -> str:
    name = found.getsockname()
    if found.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http://{host}:{name[1]}"


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host} port {port}: {reason}; choose another --host or --port") from None


def _unix(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        # Nobody else may connect, not even before the mode could be changed.
        mask = os.umask(0o177)
        try:
            found.bind(str(path))
        finally:
            os.umask(mask)
        found.listen(_BACKLOG)
    except InputError:
        found.close()
        raise
    except OSError as error:
        found.close()
        reason = error.strerror or error
        raise InputError(f"cannot listen on Unix socket '{path}': {reason}; choose another path") from None
    return found


def _clear(path: Path) -> None:
    """Removes a socket that a server left which was killed. Raises InputError if something else is there."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise InputError(f"'{path}' exists and is no socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise InputError(f"another server listens on '{path}'; end it, or choose another path")
