"""Floods: many connections, many wishes, long texts, and no file descriptors. Each gives figures for the record."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from attacks.served import Pulse, Served, asked, post, wish
from attacks.server_inputs import INFER, request

__all__ = ["FLOODS"]

_SILENT = 1100
_WISHES = 600
_MIB = 45
_BEGINNINGS = {
    "silent": b"",
    "half a head": b"POST /v2 HTTP/1.1\r\nHost: local",
    "no body": b"POST /v2/models/target/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{",
}


async def crowds(server: Served) -> dict[str, Any]:
    """More connections than there may be, which send nothing or not enough: honest requests, and until they are gone."""
    found: dict[str, Any] = {"connections": _SILENT}
    for name, beginning in _BEGINNINGS.items():
        writers = []
        for _ in range(_SILENT):
            _, writer = await server.connect()
            writer.write(beginning)
            writers.append(writer)
        found[name] = await _honest(server, 20)
        started = time.perf_counter()
        while server.process.num_fds() > 100 and time.perf_counter() - started < 60:
            await asyncio.sleep(0.25)
        found[name]["seconds_until_gone"] = round(time.perf_counter() - started, 1)
        found[name]["descriptors_then"] = server.process.num_fds()
        for writer in writers:
            writer.transport.abort()
    return found


async def wishes(server: Served) -> dict[str, Any]:
    """Wishes for a switch whose clients go away at once, and one that stays."""
    names = ("dense", "magnitude-0.5")
    for index in range(_WISHES):
        _, writer = await server.connect()
        writer.write(wish(names[index % 2]))
        await writer.drain()
        writer.close()
    status, milliseconds, body = await asked(server, wish(names[0]))
    refused = 0
    while status == 503 and refused < 50:
        refused += 1
        await asyncio.sleep(0.1)
        status, more, body = await asked(server, wish(names[0]))
        milliseconds += 100 + more
    return {
        "abandoned": _WISHES,
        "honest_status": status,
        "honest_ms": round(milliseconds, 1),
        "honest_refused": refused,
        "then_active": json.loads(body).get("wanted") if body else None,
    }


async def long_texts(server: Served) -> dict[str, Any]:
    """JSON of 45 MiB in several guises, while others ask whether the server is alive."""
    size = _MIB << 20
    numbers = (
        b'{"inputs": [{"name": "input", "shape": [1, 3, 8, 8], "datatype": "FP32", "data": ['
        + b"0.125," * (size // 6)
        + b"1]}]}"
    )
    guises = {
        "numbers": numbers,
        "empty arrays": b"[" + b"[]," * (size // 3) + b"1]",
        "strings": b"[" + b'"",' * (size // 3) + b"1]",
        "blanks": b" " * size + b"{}",
    }
    found: dict[str, Any] = {"mib": _MIB}
    for name, text in guises.items():
        with Pulse(server) as pulse:
            await asyncio.sleep(0.2)
            status, milliseconds, _ = await asked(server, post(INFER, text), 120)
            await asyncio.sleep(0.2)
        found[name] = {"status": status, "seconds": round(milliseconds / 1e3, 2), "health": pulse.summary()}
    return found


async def no_descriptors(server: Served) -> dict[str, Any]:
    """The server may open four more files, and 64 clients come; then it may open more again."""
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    lines = len(server.lines)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (server.process.num_fds() + 4, before[1]))
    started = server.process.cpu_times()
    writers = [(await server.connect())[1] for _ in range(64)]
    await asyncio.sleep(5)
    cpu = sum(server.process.cpu_times()[:2]) - sum(started[:2])
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
    found = await _honest(server, 5)
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.2)
    return {"lines_of_log": len(server.lines) - lines, "cpu_share": round(cpu / 5, 3), "then": found}


async def _honest(server: Served, count: int) -> dict[str, Any]:
    answers = [await asked(server, request(), 30) for _ in range(count)]
    statuses = Counter(status for status, _, _ in answers)
    times = sorted(milliseconds for _, milliseconds, _ in answers)
    return {
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "median_ms": round(times[count // 2], 2),
        "longest_ms": round(times[-1], 2),
    }


async def whole_server(server: Served) -> dict[str, Any]:
    """What the server says of itself at the end."""
    text = (await asked(server, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))[2].decode()
    rows = (line.split() for line in text.splitlines() if line.startswith("reconvene_limits_total"))
    counted = {row[0].split('"')[1]: int(float(row[1])) for row in rows}
    with suppress(ValueError):
        counted = {limit: count for limit, count in counted.items() if count}
    return {
        "limits_met": counted,
        "resident_mib": server.process.memory_info().rss >> 20,
        "other_processes_mib": sum(child.memory_info().rss for child in server.process.children()) >> 20,
        "tracebacks": server.tracebacks(),
    }


FLOODS: dict[str, Callable[[Served], Awaitable[dict[str, Any]]]] = {
    "crowds": crowds,
    "abandoned switches": wishes,
    "long JSON": long_texts,
    "no descriptors": no_descriptors,
    "server": whole_server,
}
