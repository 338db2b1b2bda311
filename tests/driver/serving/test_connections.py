"""Connections without a model behind them: deadlines, long heads, pipelines, crowds, slow readers, no descriptors."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
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


def test_nobody_keeps_a_connection_for_nothing() -> None:
    async def talk(door: Door) -> None:
        silent = await door.connect()
        half = await door.connect(b"GET / HTT")
        slow = await door.connect()
        idle = await door.connect(GET)
        between = await door.connect(GET + b"GET / H")
        rest = await door.connect(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")

        async def drip() -> None:
            for letter in GET * 9:
                slow.writer.write(bytes([letter]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await idle.answer() == await between.answer() == (200, b"/")
        assert await rest.answer() == (200, b"/early")
        late = (408, "the request's head did not come within 0.08 s")
        assert await asyncio.gather(*(found.error() for found in (half, slow, between))) == [late] * 3
        assert [await found.rest() for found in (silent, idle, rest)] == [b""] * 3
        dripping.cancel()
        assert (door.noted["head"], door.noted["silent"], door.noted["idle"]) == (3, 1, 1)

    through(talk, silent=0.08, head=0.08, idle=0.08, linger=0.08)


def test_what_is_in_time_is_answered() -> None:
    """Deadlines are of a phase, not of a connection; and a computation has none here."""

    async def talk(door: Door) -> None:
        kept, waiting = await door.connect(), await door.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.06)
            kept.writer.write(GET)
            assert await kept.answer() == (200, b"/")
        door.may_answer.set()
        assert await waiting.answer() == (200, b"/wait")
        assert not door.noted

    through(talk, silent=0.4, head=0.4, idle=0.4)


LONG_HEADS = {
    b"GET /" + LONG + b" HTTP/1.1\r\nHost: x\r\n\r\n": "head_bytes",
    HEAD + b"X: " + LONG + b"\r\n\r\n": "head_bytes",
    HEAD + b"X: " + LONG * 4: "head_bytes",
    HEAD + LONG * 4: "head_bytes",
    b"GET /" + LONG * 4: "head_bytes",
    b"\r\n" * 4000: "head_bytes",
    HEAD + b"Y: 1\r\n" * 11 + b"\r\n": "headers",
    HEAD + b"Y: " + LONG[:200] + b"\r\n" + b"Z: 1\r\n" * 7000: "headers",
}
TRAILERS = {
    b"1\r\na\r\n0\r\n" + b"Y: 1\r\n" * 11 + b"\r\n": "headers",
    b"1\r\na\r\n0\r\nX: " + LONG * 4: "head_bytes",
    b"1;" + LONG * 4: "head_bytes",
    b"1\r\na\r\n0\r\nX: " + LONG + b"\r\n\r\n": "head_bytes",
}
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "limit"), [*LONG_HEADS.items(), *((CHUNKED + tail, limit) for tail, limit in TRAILERS.items())]
)
def test_heads_that_are_too_long(data: bytes, limit: str) -> None:
    """Whether they come to an end or not, and behind a body as before it; in one packet or many."""
    words = "has more than 10 headers" if limit == "headers" else "head is longer than 1000 bytes"

    async def talk(door: Door) -> None:
        whole, pieces = await door.connect(data), await door.connect()
        for start in range(0, len(data), 1999):
            pieces.writer.write(data[start : start + 1999])
            await asyncio.sleep(0)
        for client in (whole, pieces):
            status, body = await client.answer()
            assert (status, words in json.loads(body)["error"]) == (431, True)
            client.writer.close()
        assert door.noted[limit] == 2 == door.noted.total()

    through(talk, head_bytes=1000, headers=10)


def test_large_bodies_are_no_heads() -> None:
    async def talk(door: Door) -> None:
        lengths = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + LONG * 15
        chunks = CHUNKED + b"1\r\na\r\n" * 9000 + b"0\r\nX: y\r\n\r\n"
        client = await door.connect(lengths + chunks + GET)
        assert [await client.answer() for _ in range(3)] == [(200, b"/")] * 3
        assert not door.noted

    through(talk, head_bytes=1000, headers=10)


BROKEN = [
    b"nonsense\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"ffffffffffffffffff\r\n",
    CHUNKED + b"1\r\nabc",
]


def test_what_is_not_http_is_told_so_and_only_in_its_turn() -> None:
    """An error that overtakes an earlier answer would be taken for it."""

    async def talk(door: Door) -> None:
        for data in BROKEN:
            status, message = await (await door.connect(data)).error()
            assert status == 400 and message.startswith("the request "), data
            behind = await door.connect(GET.replace(b"/", b"/wait", 1) + GET + data)
            await asyncio.sleep(0.002)
            door.may_answer.set()
            assert [await behind.answer() for _ in range(2)] == [(200, b"/wait"), (200, b"/")], data
            rest = await behind.rest()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 400 "), data
            door.may_answer.clear()

    through(talk)


def test_another_protocol_is_offered_in_vain() -> None:
    """Some clients do so with every first request."""

    async def talk(door: Door) -> None:
        offer = HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        client = await door.connect(offer)
        assert await client.answer() == (200, b"/")
        assert await client.rest() == b""

    through(talk)


def test_requests_ahead_of_their_answers() -> None:
    async def talk(door: Door) -> None:
        few = await door.connect(GET * 4)
        assert [await few.answer() for _ in range(4)] == [(200, b"/")] * 4
        many = await door.connect(GET * 5000)
        answers = (await many.rest()).count(b"HTTP/1.1 200")
        assert 4 <= answers <= 6 and door.noted == {"pipelined": 1}

    through(talk, pipelined=4)


def test_whoever_leaves_is_missed_though_another_request_came_behind() -> None:
    async def talk(door: Door) -> None:
        body = b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"
        client = await door.connect(body)
        await asyncio.sleep(0.02)
        client.writer.close()
        await asyncio.sleep(0.02)
        assert door.aborted == 1 and not door.open

    through(talk)


def test_silent_connections_go_for_others() -> None:
    async def talk(door: Door) -> None:
        kept = await door.connect(GET)
        assert await kept.answer() == (200, b"/")
        crowd = [await door.connect(b"GET"[: index % 4]) for index in range(30)]
        honest = []
        for _ in range(5):
            honest.append(await door.connect(GET))
            assert await honest[-1].answer() == (200, b"/")
        assert len(door.open) == 16
        # The oldest went, and none of those that once asked for something.
        kept.writer.write(GET)
        assert await kept.answer() == (200, b"/")
        assert [await crowd[index].rest() for index in range(20)] == [b""] * 20
        assert door.noted["connections"] == 1 + 30 + 5 - 16

    through(talk, most=16)


def test_among_idle_connections_the_oldest_goes() -> None:
    async def talk(door: Door) -> None:
        clients = []
        for _ in range(10):
            clients.append(await door.connect(GET))
            assert await clients[-1].answer() == (200, b"/")
        assert [await client.rest() for client in clients[:2]] == [b""] * 2
        for client in clients[2:]:
            client.writer.write(GET)
            assert await client.answer() == (200, b"/")

    through(talk, most=8)


def test_if_all_are_busy_one_more_is_told() -> None:
    async def talk(door: Door) -> None:
        wait = GET.replace(b"/", b"/wait", 1)
        busy = [await door.connect(wait) for _ in range(2)]
        await asyncio.sleep(0.02)
        refused = await door.connect()
        assert await refused.error() == (503, "too many connections are open; try again later")
        door.may_answer.set()
        assert [await client.answer() for client in busy] == [(200, b"/wait")] * 2
        # A body that does not come is no work.
        for _ in range(2):
            await door.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            await asyncio.sleep(0.01)
        assert await (await door.connect(GET)).answer() == (200, b"/")

    through(talk, most=2)


def test_whoever_does_not_read_is_left() -> None:
    async def talk(door: Door) -> None:
        large = GET.replace(b"/", b"/large", 1)
        deaf, slow = [await door.connect(large, room=1 << 16) for _ in range(2)]
        deaf.writer.transport.pause_reading()
        read = 0
        while not door.noted["unread"]:
            read += len(await slow.reader.readexactly(1 << 17))
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.02)
        assert door.noted == {"unread": 1} and len(door.open) == 1
        assert read + len(await slow.rest()) > 32 << 20

    through(talk, unread=0.3, idle=0.1)


@pytest.mark.parametrize("calm", [0.0, 1.0])
def test_no_descriptors_are_left(monkeypatch: pytest.MonkeyPatch, calm: float) -> None:
    """It is said once, an idle client makes room, and the next ones are served as soon as it can be."""
    failures = iter([errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOBUFS, None, errno.EMFILE])

    async def talk(door: Door) -> None:
        idle = await door.connect(GET)
        await idle.answer()
        loop = asyncio.get_running_loop()
        accept = loop.sock_accept

        async def failing(listener: socket.socket) -> Any:
            found = await accept(listener)
            number = next(failures, None)
            if number is not None:
                found[0].close()
                raise OSError(number, "Too many open files")
            return found

        monkeypatch.setattr(loop, "sock_accept", failing)
        monkeypatch.setattr("reconvene.driver.serving.gate._PAUSE_SECONDS", 0.01)
        monkeypatch.setattr("reconvene.driver.serving.gate._CALM_SECONDS", calm)
        assert await (await door.connect(GET)).answer() == (200, b"/")  # It was being accepted already.
        lost = [await door.connect(GET) for _ in range(4)]
        assert [await client.rest() for client in lost] == [b""] * 4
        assert await idle.rest() == b""
        assert await (await door.connect(GET)).answer() == (200, b"/")
        assert await (await door.connect(GET)).rest() == b""
        assert await (await door.connect(GET)).answer() == (200, b"/")
        lack = "connections wait or are closed for others: Too many open files; allow more files with ulimit -n"
        over = "there are file descriptors for all connections again"
        # Those that come and go are one lack, so that clients cannot fill the log with it.
        assert door.lines == ([lack] if calm else [lack, over] * 2)
        assert door.noted["descriptors"] == 4

    through(talk)


def test_heads_that_two_readers_read_in_two_ways() -> None:
    """They are refused, the request itself and whatever comes behind it; the same as a whole URL of this host is answered."""

    async def talk(door: Door) -> None:
        whole = await door.connect(b"GET http://x/a HTTP/1.1\r\nHost: X\r\n\r\n")
        assert await whole.answer() == (200, b"/a")
        heads = {
            b"GET http://evil/a HTTP/1.1\r\nHost: x\r\n\r\n": "target of another host than its Host header",
            b"GET / HTTP/1.1\r\nHost: a@x\r\n\r\n": "Host that is no name with a port",
            b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n": "2 Host headers instead of one",
            HEAD + b"Origin: http://x\r\nOrigin: http://evil\r\n\r\n": "2 Origin headers instead of one",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "which HTTP/1.0 does not have",
            b"GET / HTTP/1.1\r\n Host: evil\r\nHost: x\r\n\r\n": "is not HTTP/1.1",
            HEAD + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na": "is not HTTP/1.1",
            HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "is not HTTP/1.1",
            b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n": "",
        }
        for head, words in heads.items():
            client = await door.connect(head + GET)
            status, message = await client.error()
            assert status == 400 and words in message, head
        assert door.noted["malformed"] == len(heads)

    through(talk)
