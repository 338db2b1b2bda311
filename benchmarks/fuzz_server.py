"""Hostile inputs for `reconvene serve`, over the network: malformed requests from a seed, and floods.

    python benchmarks/fuzz_server.py [--inputs 2200] [--seed 0] [--seconds 300] [--parts inputs floods]
        [--json docs/results/fuzz_server.json]

Input i of a seed is always the same. Each is sent on a connection of its own, some at a time, while another client asks every
10 ms whether the server is alive. What must not be: an answer 500, an answer that is not one line of JSON, a wrong answer to a
request that was in order, more answers than requests, a connection that neither answers nor ends within 5 seconds of our end of
it, a traceback, a server that is gone. Such an input is printed. Exit code 1 if there was one.

The floods: 1,100 connections that send nothing, half a head, or no body; 600 wishes for a switch whose clients go away; JSON of
45 MiB; a server without file descriptors.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacks.served import Pulse, Served, asked, made, served
from attacks.server_floods import FLOODS
from attacks.server_inputs import Input, make, request

from reconvene.driver.reports.report import environment
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text

_AT_A_TIME = 4
_PATIENCE = 0.25
"""Seconds in which a first answer is expected before we end our side, which the server takes for leaving."""
_HANG = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=300, help="after which no further input is sent")
    parser.add_argument("--parts", nargs="+", choices=("inputs", "floods"), default=("inputs", "floods"))
    parser.add_argument(
        "--json", type=Path, help="where the record goes; parts that are not asked for stay as they are"
    )
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            portfolio = made(Path(temporary))
            with served(portfolio, Path(temporary) / "state.json", "--variant", "dense") as server:
                record = asyncio.run(measured(server, options))
    except (ReconveneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(record, indent=1))
    return (
        1
        if record.get("inputs", {}).get("faults") or record.get("floods", {}).get("server", {}).get("tracebacks")
        else 0
    )


async def measured(server: Served, options: argparse.Namespace) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text(encoding="utf-8"))
    record["setting"] = {**environment(), "seed": options.seed}
    if "inputs" in options.parts:
        record["inputs"] = await fuzzed(server, options)
    if "floods" in options.parts:
        record["floods"] = {}
        for name, flood in FLOODS.items():
            print(f"{name} ...", file=sys.stderr)
            record["floods"][name] = await flood(server)
    if options.json:
        write_text(options.json, json.dumps(record, indent=1) + "\n")
    return record


@dataclass
class Seen:
    """What came of the inputs."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    silent: int = 0

    def fault(self, what: str, number: int, data: bytes) -> None:
        self.faults[what] += 1
        print(f"input {number}: {what}: {data[:300]!r}", file=sys.stderr)


async def fuzzed(server: Served, options: argparse.Namespace) -> dict[str, Any]:
    seen, started = Seen(), time.perf_counter()
    status, _, body = await asked(server, request())
    if status != 200:
        raise OSError(f"the server answers {status} to a request that is in order: {body[:200]!r}")
    right = json.loads(body)["outputs"]
    numbers = iter(range(options.first, options.first + options.inputs))

    async def client() -> None:
        for number in numbers:
            if time.perf_counter() - started > options.seconds or not server.process.is_running():
                return
            given = make(options.seed, number)
            seen.sent[given.kind] += 1
            answer, hung = await exchanged(server, given.pieces)
            judge(seen, number, given, answer, hung, right)

    with Pulse(server) as pulse:
        await asyncio.gather(*(client() for _ in range(_AT_A_TIME)))
    if not server.process.is_running():
        seen.fault("the server is gone", -1, b"")
    if (await asked(server, request()))[0] != 200:
        seen.fault("the server does not answer any more", -1, b"")
    if server.tracebacks():
        seen.faults["traceback"] += server.tracebacks()
    if pulse.failed:
        seen.faults["not alive"] += pulse.failed
    return {
        "sent": seen.sent.total(),
        "seconds": round(time.perf_counter() - started, 1),
        "kinds": dict(seen.sent),
        "statuses": {str(status): count for status, count in sorted(seen.statuses.items())},
        "without_an_answer": seen.silent,
        "faults": dict(seen.faults),
        "lines_of_log": len(server.lines),
        "health": pulse.summary(),
    }


async def exchanged(server: Served, pieces: Sequence[bytes]) -> tuple[bytes, bool]:
    """All that the server sends, and whether the connection had to be cut off."""
    answer = b""
    reader, writer = await server.connect()
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), _HANG)
            if len(pieces) > 1:
                await asyncio.sleep(0.001)
        with suppress(TimeoutError):
            while part := await asyncio.wait_for(reader.read(1 << 16), _PATIENCE):
                answer += part
        if writer.can_write_eof():
            writer.write_eof()
        return answer + await asyncio.wait_for(reader.read(), _HANG), False
    except TimeoutError:
        return answer, True
    except OSError:
        # The server has closed it, and we were still sending.
        return answer, False
    finally:
        writer.transport.abort()


def judge(seen: Seen, number: int, given: Input, answer: bytes, hung: bool, right: Any) -> None:
    data = b"".join(given.pieces)
    statuses, bodies = parsed(answer)
    seen.statuses.update(statuses)
    seen.silent += not statuses
    if hung:
        seen.fault("hang", number, data)
    if any(status >= 500 and status not in (503, 504) for status in statuses):
        seen.fault("500", number, data)
    if len(statuses) > given.most:
        seen.fault("more answers than requests", number, data)
    for status, body in zip(statuses, bodies, strict=True):
        if status >= 400 and body and not _is_refusal(body):
            seen.fault("an answer that is no refusal in JSON", number, data)
    found = [
        json.loads(body)["outputs"]
        for status, body in zip(statuses, bodies, strict=True)
        if status == 200 and given.right
    ]
    if given.right is not None and (len(found) != given.right or any(outputs != right for outputs in found)):
        seen.fault("not the right answers", number, data)


def parsed(answer: bytes) -> tuple[list[int], list[bytes]]:
    """Statuses and bodies of the answers one after the other; what says go on is none."""
    statuses, bodies = [], []
    while match := re.match(rb"HTTP/1\.1 (\d{3}) ", answer):
        head, _, answer = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        size = int(length[1]) if length else 0
        if match[1] == b"100":
            continue
        statuses.append(int(match[1]))
        bodies.append(answer[:size])
        answer = answer[size:]
    return statuses, bodies


def table(record: dict[str, Any]) -> str:
    """The inputs, and a row for each flood."""
    inputs, floods = record["inputs"], record["floods"]
    faults = sum(inputs["faults"].values())
    lines = [
        f"{inputs['sent']:,} inputs of {len(inputs['kinds'])} kinds: {faults} faults, {inputs['lines_of_log']} lines of log;"
        f" alive within {inputs['health']['median_ms']} ms (median) and {inputs['health']['longest_ms']} ms (longest).",
        "",
        "| flood | honest requests | median ms | longest ms | over after s |",
        "|---|---|---:|---:|---:|",
    ]
    crowds = {name: row for name, row in floods["crowds"].items() if isinstance(row, dict)}
    for name, row in crowds.items():
        what = f"{floods['crowds']['connections']:,} connections: {name}"
        lines.append(
            f"| {what} | {_statuses(row)} | {row['median_ms']} | {row['longest_ms']} | {row['seconds_until_gone']} |"
        )
    wishes = floods["abandoned switches"]
    lines.append(
        f"| {wishes['abandoned']} abandoned switches | 1 x {wishes['honest_status']} | | {wishes['honest_ms']} | |"
    )
    for name, row in floods["long JSON"].items():
        if isinstance(row, dict):
            health = row["health"]
            alive = f"{health['asked']} x alive, {health['failed']} not"
            what = f"{floods['long JSON']['mib']} MiB of JSON: {name}"
            lines.append(f"| {what} | {alive} | {health['median_ms']} | {health['longest_ms']} | {row['seconds']} |")
    lack = floods["no descriptors"]
    what = f"no descriptors for 5 s, {lack['lines_of_log']} line(s) of log, then"
    lines.append(
        f"| {what} | {_statuses(lack['then'])} | {lack['then']['median_ms']} | {lack['then']['longest_ms']} | |"
    )
    return "\n".join(lines)


def _statuses(row: dict[str, Any]) -> str:
    return ", ".join(f"{count} x {status}" for status, count in row["statuses"].items())


def _is_refusal(body: bytes) -> bool:
    try:
        (message,) = json.loads(body).values()
    except (ValueError, AttributeError):
        return False
    return isinstance(message, str) and 0 < len(message) < 1000 and "\n" not in message


if __name__ == "__main__":
    sys.exit(main())
