"""Connections without a model behind them: deadlines, crowds, slow readers, no descriptors."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from .doors import GET, Door, through


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
