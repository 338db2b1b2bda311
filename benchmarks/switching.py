"""Switching between the variants of a portfolio while it is served, beside three ways to do without.

    python benchmarks/switching.py [PORTFOLIO] [--seconds 300] [--requests 10000] [--switches 200]
        [--json docs/results/switching.json]

Without PORTFOLIO a small one is made: VGG-16 for CIFAR-10 at a quarter of its width, with random weights, dense and with a
quarter, half and three quarters of its channels removed.

Load: `reconvene serve` in a process of its own, clients on loopback that send the next request as soon as they have an answer,
and one that switches to another variant at even intervals. Every answer is compared, bit by bit, with what the variant that it
names gives. A gap is the time between two answers in a row, whichever client gets them.

Beside it, without load, the program of bundles (`run --serve`, in C++, without any runtime), which switches by becoming the
other program. And ways to do without switching, each in a process of its own, through the same variants in the same order:

* resident: all variants are loaded, and a switch is an assignment;
* dense: a switch loads the dense program, prunes it to the variant's size, compacts, compiles and warms it, with compiled code
  in reconvene's cache since an earlier round;
* restart: a switch ends the server and starts another one, which answers when it is up.

Memory is what is the process' own (private pages), less what it has after it loaded the smallest variant and unloaded it again;
of the C++ program, all of it while a variant is loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch

from reconvene.backends.built import load_bundle
from reconvene.driver.example_inputs import random_input
from reconvene.driver.portfolio.manifest import VARIANTS, Portfolio, listed_bundle, open_portfolio
from reconvene.driver.reports.report import environment
from reconvene.driver.serving.memory import release_memory
from reconvene.driver.serving.protocol import LENGTH_HEADER, tensor_metadata
from reconvene.driver.serving.resident import load_variant
from reconvene.driver.serving.switcher import Switcher
from reconvene.frontend.base.errors import ReconveneError
from reconvene.frontend.base.files import write_text

PARTS = ("load", "switcher", "program", "resident", "dense", "restart")
_MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("portfolio", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=300, help="of load with switches, at least")
    parser.add_argument("--requests", type=int, default=10_000, help="with switches, at least")
    parser.add_argument("--switches", type=int, default=200, help="spread over the seconds")
    parser.add_argument("--still", type=float, default=30, help="seconds of load without switches, for comparison")
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="times through all variants, for each alternative")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="of the record; others stay as they are"
    )
    parser.add_argument("--json", type=Path, help="where the record is, written after every part")
    parser.add_argument("--child", choices=(*PARTS[1:], "bare"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.child:
            portfolio = open_portfolio(options.portfolio, files=False)
            print(json.dumps(_CHILDREN[options.child](portfolio, options.rounds, options.threads)))
            return 0
        with tempfile.TemporaryDirectory() as temporary:
            portfolio = open_portfolio(options.portfolio or made(Path(temporary)))
            record = measured(portfolio, options)
    except (ReconveneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(record))
    load = record.get("load", {})
    return 1 if load.get("wrong") or load.get("dropped") or load.get("switches_failed") else 0


def made(folder: Path) -> Path:
    """A portfolio of VGG-16 at a quarter of its width, with four degrees of pruning."""
    import reconvene
    from reconvene.driver.portfolio.build import Options, build_portfolio
    from reconvene.driver.portfolio.sources import pruned_sources
    from reconvene.frontend.networks.papers import vgg16_cifar

    torch.manual_seed(0)
    inputs = (torch.randn(1, 3, 32, 32),)
    module = reconvene.capture(vgg16_cifar(width=0.25), inputs)
    sources = pruned_sources(module, inputs, (0, 0.25, 0.5, 0.75), "magnitude")
    return build_portfolio(sources, folder / "vgg16-quarter", "vgg16-quarter", Options(repeat=10)).folder


def measured(portfolio: Portfolio, options: argparse.Namespace) -> dict[str, Any]:
    """The record, with those parts made anew that were asked for."""
    record: dict[str, Any] = {"alternatives": {}}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text(encoding="utf-8"))
    record["setting"] = {
        **environment(),
        "threads": options.threads,
        "clients": options.clients,
        "dtype": portfolio.inputs[0].dtype,
        "batch": portfolio.inputs[0].shape[0] if portfolio.inputs[0].shape else 1,
    }
    record["portfolio"] = portfolio.name
    record["variants"] = [
        {key: getattr(variant, key) for key in ("name", "parameters", "bytes", "macs")}
        for variant in portfolio.variants
    ]
    for part in options.parts:
        print(f"{part} ...", file=sys.stderr)
        if part == "load":
            record["load"] = asyncio.run(under_load(portfolio, options))
        else:
            call = [sys.executable, "-W", "ignore", __file__, str(portfolio.folder), "--child", part]
            chosen = ["--rounds", str(options.rounds), "--threads", str(options.threads)]
            done = subprocess.run([*call, *chosen], stdout=subprocess.PIPE, text=True, check=True)
            record["alternatives"][part] = json.loads(done.stdout.splitlines()[-1])
        if options.json:
            write_text(options.json, json.dumps(record, indent=1) + "\n")
    return record


# ---- load


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
        "server_private_mib": round(memory / _MIB, 1),
        **switches.summary(),
    }


def enough(seen: Seen, seconds: float, least: int) -> bool:
    first = seen.finished[0] if seen.finished else time.perf_counter()
    return len(seen.finished) >= least and time.perf_counter() - first >= seconds


@contextmanager
def served(portfolio: Portfolio, threads: int, variant: str | None = None) -> Iterator[tuple[str, int, psutil.Process]]:
    """`reconvene serve` on a free port, once it accepts connections."""
    with tempfile.TemporaryDirectory() as state:
        call = [sys.executable, "-m", "reconvene", "serve", str(portfolio.folder), "--port", "0"]
        call += ["--threads", str(threads), "--state", f"{state}/state.json"]
        call += ["--variant", variant] if variant else []
        server = subprocess.Popen(call, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert server.stderr is not None
            line = next((line for line in server.stderr if line.startswith(("serving ", "error: "))), "it said nothing")
            if not line.startswith("serving "):
                raise OSError(f"the server did not start: {line.strip()}")
            threading.Thread(target=server.stderr.read, daemon=True).start()
            host, _, port = line.split()[-1].removeprefix("http://").partition(":")
            yield host, int(port), psutil.Process(server.pid)
        finally:
            server.terminate()
            server.wait()


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


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one HTTP answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def example(portfolio: Portfolio) -> list[np.ndarray[Any, Any]]:
    specs = enumerate(portfolio.inputs)
    return [random_input(spec.shape, getattr(torch, spec.dtype), 7 + index).numpy() for index, spec in specs]


def raw_request(portfolio: Portfolio, inputs: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """An inference request with binary inputs and outputs, HTTP's head included."""
    described = tensor_metadata(portfolio.inputs)
    for entry, array in zip(described, inputs, strict=True):
        entry["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    body = b"".join([text, *(array.tobytes() for array in inputs)])
    lines = [f"POST /v2/models/{portfolio.name}/infer HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    lines += [f"{LENGTH_HEADER}: {len(text)}", "", ""]
    return "\r\n".join(lines).encode() + body


def raw_outputs(portfolio: Portfolio, name: str, inputs: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """What a variant gives, as the answer's bytes."""
    tensors = load_bundle(listed_bundle(portfolio, portfolio.variant(name), "host")).run_tensors(inputs)
    return b"".join(np.ascontiguousarray(tensor.numpy()).tobytes() for tensor in tensors)


# ---- alternatives, each in a process of its own


@dataclass(frozen=True)
class Cost:
    """What an alternative costs.

    Attributes:
        switch_ms: median and longest time from the wish for another variant until that one answers, warm.
        gap_ms: the part of it in which nobody answers, median.
        steady_mib: with one switch done, median over the variants; what serves, beside the imports.
        peak_mib: the most at any moment of a switch.
    """

    switch_ms: float
    switch_longest_ms: float
    gap_ms: float
    steady_mib: float
    peak_mib: float
    switches: int


class Meter:
    """Samples the private memory of a process every few milliseconds."""

    def __init__(self, process: psutil.Process | None = None) -> None:
        self._process = process or psutil.Process()
        self.base = private(self._process)
        self.peak = self.base
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def now(self) -> float:
        return (private(self._process) - self.base) / _MIB

    def stop(self) -> float:
        """The most there was, in MiB over the base."""
        self._stop.set()
        self._thread.join()
        return (self.peak - self.base) / _MIB

    def _run(self) -> None:
        while not self._stop.wait(0.004):
            self.peak = max(self.peak, private(self._process))


def private(process: psutil.Process) -> int:
    return int(process.memory_full_info().uss)


def order(portfolio: Portfolio, rounds: int) -> list[str]:
    return [variant.name for variant in portfolio.variants] * rounds


def child_switcher(portfolio: Portfolio, rounds: int, threads: int) -> dict[str, Any]:
    """Ours."""
    inputs = example(portfolio)
    begin(portfolio, threads)
    meter = Meter()
    switcher = Switcher(portfolio, threads=threads)
    switcher.start([portfolio.variants[-1].name])
    times, gaps, steady = [], [], []
    for name in order(portfolio, rounds):
        started = time.perf_counter()
        switch = switcher.switch(name, "benchmark").result()
        if switch.error is not None:
            raise OSError(switch.error)
        with switcher.lease() as resident:
            resident.run(inputs)
        del resident
        times.append(1e3 * (time.perf_counter() - started) - switch.free_ms)
        gaps.append(switch.swap_ms)
        steady.append(meter.now())
    return asdict(cost(times, gaps, steady, meter.stop()))


def child_program(portfolio: Portfolio, rounds: int, threads: int) -> dict[str, Any]:
    """The program of a bundle, told to switch on its standard input; requests wait meanwhile."""
    import reconvene

    inputs = example(portfolio)
    tensors = tuple(torch.from_numpy(value) for value in inputs)
    stream = io.BytesIO()
    for array in inputs:
        np.save(stream, array)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / VARIANTS
        for variant in portfolio.variants:
            built = reconvene.compile(str(portfolio.folder / VARIANTS / variant.name / "model.pt2"), tensors)
            (place / variant.name).mkdir(parents=True)
            built.export(place / variant.name / "host", runtime="none")
        call = [str(place / portfolio.variants[-1].name / "host" / "run"), "--serve"]
        with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            assert program.stdin is not None and program.stdout is not None
            pipe = SimpleNamespace(read=program.stdout.read)
            times, steady = [], []
            for name in order(portfolio, rounds):
                started = time.perf_counter()
                program.stdin.write(f"switch {name}\n".encode() + stream.getvalue())
                program.stdin.flush()
                line = program.stdout.readline().decode().strip()
                if line != f"switched {name}":
                    raise OSError(line)
                for _ in portfolio.outputs:
                    np.lib.format.read_array(pipe)  # type: ignore[arg-type]
                times.append(1e3 * (time.perf_counter() - started))
                steady.append(private(psutil.Process(program.pid)) / _MIB)
            program.stdin.close()
    return asdict(cost(times, times, steady, max(steady)))


def child_resident(portfolio: Portfolio, rounds: int, threads: int) -> dict[str, Any]:
    """All variants stay in memory."""
    inputs = example(portfolio)
    begin(portfolio, threads)
    meter = Meter()
    loaded = {variant.name: load_variant(portfolio, variant, threads=threads) for variant in portfolio.variants}
    release_memory()
    times, steady = [], []
    for name in order(portfolio, rounds):
        started = time.perf_counter()
        active = loaded[name]
        times.append(1e3 * (time.perf_counter() - started))
        active.run(inputs)
        steady.append(meter.now())
    return asdict(cost(times, times, steady, meter.stop()))


def child_dense(portfolio: Portfolio, rounds: int, threads: int) -> dict[str, Any]:
    """The dense program is loaded at every switch, and pruned to a variant's share of the multiply-accumulates."""
    import reconvene
    from reconvene.frontend.program_file import load_program

    inputs = example(portfolio)
    tensors = tuple(torch.from_numpy(value) for value in inputs)
    dense = portfolio.variants[0]

    def switched(name: str) -> Any:
        module, _ = load_program(portfolio.folder / VARIANTS / dense.name / "model.pt2")
        # Removing a share of the channels on both sides of a layer leaves the square of the rest.
        share = portfolio.variant(name).macs / max(1, dense.macs)
        small = reconvene.prune(module, tensors, sparsity=1 - share**0.5).module if share < 1 else module
        built = reconvene.compile(small, tensors, threads=threads)
        built.run(*inputs)
        return built

    # The first time, much of torch is imported, and compiled code gets into the cache.
    for name in order(portfolio, 1):
        switched(name)
    begin(portfolio, threads)
    meter = Meter()
    times, steady = [], []
    for name in order(portfolio, 1):
        started = time.perf_counter()
        built = switched(name)
        times.append(1e3 * (time.perf_counter() - started))
        release_memory()
        steady.append(meter.now())
    del built
    # The old model can answer meanwhile, as ours does.
    return asdict(cost(times, [0.0] * len(times), steady, meter.stop()))


def child_restart(portfolio: Portfolio, rounds: int, threads: int) -> dict[str, Any]:
    """The server is ended, and another one started with the other variant."""
    request = raw_request(portfolio, example(portfolio))
    base = bare_process(portfolio)
    times, steady = [], []
    for name in order(portfolio, 1):
        started = time.perf_counter()
        with served(portfolio, threads, name) as (host, port, process):
            asyncio.run(one_answer(host, port, request))
            times.append(1e3 * (time.perf_counter() - started))
            steady.append((private(process) - base) / _MIB)
    return asdict(cost(times, times, steady, max(steady)))


async def one_answer(host: str, port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    status, _, body = await response(reader)
    writer.close()
    if status != 200:
        raise OSError(body.decode("utf-8", "replace"))


def begin(portfolio: Portfolio, threads: int) -> None:
    """What only the first model costs: buffers and code of the runtime, and what is imported late."""
    load_variant(portfolio, portfolio.variants[-1], threads=threads).unload()


def bare_process(portfolio: Portfolio) -> int:
    """Private bytes of a process that has imported what the server imports, and has no model any more."""
    call = [sys.executable, "-W", "ignore", __file__, str(portfolio.folder), "--child", "bare"]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def child_bare(portfolio: Portfolio, rounds: int, threads: int) -> int:
    import reconvene.driver.serving.server  # noqa: F401

    begin(portfolio, threads)
    return private(psutil.Process())


def cost(times: Sequence[float], gaps: Sequence[float], steady: Sequence[float], peak: float) -> Cost:
    return Cost(
        statistics.median(times),
        max(times),
        statistics.median(gaps),
        round(statistics.median(steady), 2),
        round(max(peak, *steady), 2),
        len(times),
    )


_CHILDREN: dict[str, Callable[[Portfolio, int, int], Any]] = {
    "switcher": child_switcher,
    "program": child_program,
    "resident": child_resident,
    "dense": child_dense,
    "restart": child_restart,
    "bare": child_bare,
}

# ---- what is shown


def table(record: dict[str, Any]) -> str:
    """The load, and the alternatives beside each other."""
    first, last = (
        f"{row['name']} ({row['bytes'] / _MIB:.2f} MiB)" for row in (record["variants"][0], record["variants"][-1])
    )
    lines = [f"Portfolio '{record['portfolio']}', {len(record['variants'])} variants, {first} to {last}.", ""]
    if "load" in record:
        lines += [*load_table(record["load"]), ""]
    texts = {
        "switcher": "one resident variant (ours)",
        "program": "the program of a bundle, in C++",
        "resident": "all variants resident",
        "dense": "dense model pruned and compiled at the switch",
        "restart": "restart of the process",
    }
    lines += [
        "| without load | switch ms | longest | of which nobody answers | memory MiB | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, text in texts.items():
        if row := record["alternatives"].get(name):
            numbers = (row[key] for key in ("switch_ms", "switch_longest_ms", "gap_ms", "steady_mib", "peak_mib"))
            lines.append(f"| {text} | " + " | ".join(f"{number:,.3g}" for number in numbers) + " |")
    return "\n".join(lines)


def load_table(load: dict[str, Any]) -> list[str]:
    lines = [
        "| load | requests | per second | p50 ms | p99 ms | longest ms | longest gap ms | dropped | wrong |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    switching = f"{load['switches']} switches in {load['seconds']:.0f} s"
    for what, row in (("no switches", load["still"]), (switching, load)):
        numbers = (row[key] for key in ("p50_ms", "p99_ms", "longest_ms", "longest_gap_ms"))
        shown = " | ".join(f"{number:.2f}" for number in numbers)
        lines.append(
            f"| {what} | {row['requests']:,} | {row['per_second']:,.0f} | {shown} | {row['dropped']} | {row['wrong']} |"
        )
    lines += [
        "",
        f"Of the switches under load (medians, longest in brackets): load {pair(load, 'load')}, warm {pair(load, 'warm')},"
        f" swap {pair(load, 'swap')} ms; the old variant was gone {pair(load, 'free')} ms later.",
    ]
    return lines


def pair(row: dict[str, Any], step: str) -> str:
    return f"{row[f'{step}_median_ms']:.3g} ({row[f'{step}_longest_ms']:.3g})"


if __name__ == "__main__":
    sys.exit(main())
