"""A listening gate without a model behind it, and clients of it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from reconvene.driver.serving.connection import Connection
from reconvene.driver.serving.gate import Gate
from reconvene.driver.serving.limits import COUNTED, Limits

HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"
GET = HEAD + b"\r\n"
LONG = b"a" * 2000


@dataclass
class Door:
    """A listening gate, and what it noted and said."""

    address: tuple[str, int]
    open: set[Connection]
    noted: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    aborted: int = 0
    """Requests whose bodies ended too early."""
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    """Requests for ``/wait`` are answered when it is set."""

    async def connect(self, data: bytes = b"", room: int | None = None) -> Client:
        """A client that has sent `data`; its system takes `room` bytes ahead of it."""
        client = socket.socket()
        client.setblocking(False)
        if room is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        await asyncio.get_running_loop().sock_connect(client, self.address)
        found = Client(*await asyncio.open_connection(sock=client))
        found.writer.write(data)
        return found


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def rest(self) -> bytes:
        """All that still comes until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 5)
        except ConnectionError:
            return b""
        finally:
            self.writer.close()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        length = int(head.lower().partition(b"content-length: ")[2].split()[0])
        return int(head.split()[1]), await asyncio.wait_for(self.reader.readexactly(length), 5)

    async def error(self) -> tuple[int, str]:
        """Status and words of a refusal, behind which the connection ends."""
        status, body = await self.answer()
        assert await self.rest() == b""
        return status, json.loads(body)["error"]


@asynccontextmanager
async def door(most: int = 100, **limits: Any) -> AsyncIterator[Door]:
    """A gate before an application that reads bodies, and answers with its path; ``/large`` with 32 MiB."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].encode()
        while path != b"/early" and scope["method"] == "POST":
            message = await receive()
            found.aborted += message["type"] == "http.disconnect"
            if not message.get("more_body"):
                break
        if path == b"/wait":
            await found.may_answer.wait()
        body = bytes(32 << 20) if path == b"/large" else path
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def note(limit: str) -> None:
        assert limit in COUNTED
        found.noted[limit] += 1

    config = Config(app, lifespan="off", log_config=None, log_level="critical")
    config.load()
    state = ServerState()
    chosen = Limits(**limits)
    listener = socket.create_server(("127.0.0.1", 0))
    connections: Any = state.connections
    found = Door(listener.getsockname(), connections)
    gate = Gate(connections, lambda: Connection(config, state, {}, chosen, note), most, note, found.lines.append)
    gate.open([listener])

    async def sweeps() -> None:
        while True:
            gate.sweep()
            await asyncio.sleep(0.01)

    sweeper = asyncio.create_task(sweeps())
    try:
        yield found
        assert sweeper.cancel()
    finally:
        await gate.close()
        listener.close()
        for connection in tuple(found.open):
            connection.transport.abort()
        found.may_answer.set()
        await asyncio.sleep(0)


def through(talk: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def conversation() -> None:
        async with door(**options) as found:
            await talk(found)

    asyncio.run(conversation())
