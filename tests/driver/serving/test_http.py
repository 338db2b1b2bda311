"""What connections take for requests: long heads, what is no HTTP, several requests in a row, without a model behind them."""

from __future__ import annotations

import asyncio
import json

import pytest

from .doors import GET, HEAD, LONG, Door, through

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
