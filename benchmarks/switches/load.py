"""Clients that ask without a pause, and one that switches variants meanwhile."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reconvene.driver.portfolio.manifest import Portfolio
from reconvene.driver.serving.protocol import LENGTH_HEADER

from .exchange import example, raw_outputs, raw_request, response
from .memory import MIB, private
from .server import served

__all__ = ["under_load"]


@dataclass
class Seen:
    """What the clients saw."""

    finished: list[float] = field(default_factory=list)
    """When each answer came, in order."""
    latencies: list[float] = field(default_factory=list)
    wrong: int = 0
    dropped: int = 0
    variants: set[str] = field(default_factory=set)

    def summary(self, seconds: float) -> dict[str, Any]:
        gaps = [after - before for before, after in itertools.pairwise(self.finished)]
        return {
            "requests": len(self.finished),
            "dropped": self.dropped,
            "wrong": self.wrong,
            "seconds": round(seconds, 2),
            "per_second": round(len(self.finished) / seconds, 1),
            "p50_ms": percentile(self.latencies, 50),
            "p99_ms": percentile(self.latencies, 99),
            "longest_ms": 1e3 * max(self.latencies),
            "longest_gap_ms": 1e3 * max(gaps),
        }


def percentile(seconds: Sequence[float], share: float) -> float:
    return float(np.percentile(seconds, share)) * 1e3


async def under_load(portfolio: Portfolio, options: argparse.Namespace) -> dict[str, Any]:
    """Requests without switches, and then with them."""
    inputs = example(portfolio)
    expected = {variant.name: raw_outputs(portfolio, variant.name, inputs) for variant in portfolio.variants}
    request = raw_request(portfolio, inputs)
    with served(portfolio, options.threads) as (host, port, process):
        still = Seen()
        await clients(
            host, port, options.clients, request, expected, still, lambda: not enough(still, options.still, 1)
        )
        seen, switches = Seen(), Switches()
        started = time.perf_counter()
        going = lambda: (  # noqa: E731
            time.perf_counter() - started < options.seconds
            or len(seen.finished) < options.requests
            or len(switches.done) < options.switches
        )
        await asyncio.gather(
            clients(host, port, options.clients, request, expected, seen, going),
            switching(host, port, portfolio, options.seconds / options.switches, switches, going),
        )
        seconds = time.perf_counter() - started
        memory = private(process)
    return {
        "still": still.summary(options.still),
        **seen.summary(seconds),
        "switches": len(switches.done),
        "switches_failed": switches.failed,
        "variants_that_answered": len(seen.variants),
        "server_private_mib": round(memory / MIB, 1),
        **switches.summary(),
    }


def enough(seen: Seen, seconds: float, least: int) -> bool:
    first = seen.finished[0] if seen.finished else time.perf_counter()
    return len(seen.finished) >= least and time.perf_counter() - first >= seconds


async def clients(
    host: str,
    port: int,
    count: int,
    request: bytes,
    expected: dict[str, bytes],
    seen: Seen,
    going: Callable[[], bool],
) -> None:
    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while going():
            started = time.perf_counter()
            try:
                writer.write(request)
                status, headers, body = await response(reader)
            except (OSError, EOFError):
                seen.dropped += 1
                reader, writer = await asyncio.open_connection(host, port)
                continue
            now = time.perf_counter()
            if status != 200:
                seen.dropped += 1
                continue
            seen.finished.append(now)
            seen.latencies.append(now - started)
            length = int(headers[LENGTH_HEADER.lower()])
            variant = json.loads(body[:length])["model_version"]
            seen.variants.add(variant)
            seen.wrong += body[length:] != expected[variant]
        writer.close()

    await asyncio.gather(*(one() for _ in range(count)))


@dataclass
class Switches:
    """What became of the switches that a client asked for."""

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0

    def summary(self) -> dict[str, float]:
        steps = {step: [row[f"{step}_ms"] for row in self.done] for step in ("load", "warm", "swap", "free")}
        steps["switch"] = [sum(row[f"{step}_ms"] for step in ("load", "warm", "swap")) for row in self.done]
        return {
            f"{step}_{what}_ms": float(value)
            for step, times in steps.items()
            for what, value in (("median", statistics.median(times)), ("longest", max(times)))
        }


async def switching(
    host: str, port: int, portfolio: Portfolio, pause: float, switches: Switches, going: Callable[[], bool]
) -> None:
    """Goes from variant to variant: through all of them down and up again, so that neighbours and ends take turns."""
    names = [variant.name for variant in portfolio.variants]
    order = itertools.cycle([*names[1:], *names[-2::-1]] if len(names) > 1 else names)
    reader, writer = await asyncio.open_connection(host, port)
    while going():
        began = time.perf_counter()
        body = json.dumps({"parameters": {"variant": next(order)}}).encode()
        head = (
            f"POST /v2/repository/models/{portfolio.name}/load HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            status, _, answer = await response(reader)
        except (OSError, EOFError):
            switches.failed += 1
            reader, writer = await asyncio.open_connection(host, port)
            continue
        if status == 200:
            switches.done.append(json.loads(answer))
        else:
            switches.failed += 1
        await asyncio.sleep(max(0.0, pause - (time.perf_counter() - began)))
    writer.close()
