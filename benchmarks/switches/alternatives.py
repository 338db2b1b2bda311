"""Switching, and ways to do without it, each measured in a process of its own, without load."""

from __future__ import annotations

import asyncio
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import torch

from reconvene.driver.portfolio.manifest import VARIANTS, Portfolio
from reconvene.driver.serving.memory import release_memory
from reconvene.driver.serving.resident import load_variant
from reconvene.driver.serving.switcher import Switcher

from .exchange import example, raw_request, response
from .memory import MIB, Meter, private
from .server import served

__all__ = ["CHILDREN"]

PROGRAM = Path(__file__).resolve().parents[1] / "switching.py"


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
                steady.append(private(psutil.Process(program.pid)) / MIB)
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
            steady.append((private(process) - base) / MIB)
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
    call = [sys.executable, "-W", "ignore", str(PROGRAM), str(portfolio.folder), "--child", "bare"]
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


CHILDREN: dict[str, Callable[[Portfolio, int, int], Any]] = {
    "switcher": child_switcher,
    "program": child_program,
    "resident": child_resident,
    "dense": child_dense,
    "restart": child_restart,
    "bare": child_bare,
}
