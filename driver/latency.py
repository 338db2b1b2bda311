"""Measurements of the backends as rows of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..frontend.progress import stage
from .report import Latency

if TYPE_CHECKING:
    from torch import fx

__all__ = ["ENGINES", "measure"]

ENGINES = ("reconvene", "tvm-default", "eager")


def measure(
    variant: str,
    module: fx.GraphModule,
    inputs: Sequence[Any],
    target: str,
    threads: int,
    repeat: int,
    engines: Sequence[str] = ENGINES,
) -> list[Latency]:
    """Latency of `module` on every engine, under the name `variant`, in the order of `engines`."""
    from ..backends.measure import compare

    with stage(f"measuring {variant}"):
        timings = compare(module, tuple(inputs), target, threads=threads, repeat=repeat, engines=tuple(engines))
    return [
        Latency(
            engine=engine,
            variant=variant,
            median_ms=timings[engine].median_ms,
            p10_ms=timings[engine].p10_ms,
            p90_ms=timings[engine].p90_ms,
            repeats=timings[engine].repeats,
            threads=timings[engine].threads,
            batch=timings[engine].batch,
        )
        for engine in engines
    ]
