"""Latency of several models on several engines, in one run and by turns, so that noise falls on all of them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...frontend.base.progress import stage
from .report import Latency

if TYPE_CHECKING:
    from torch import fx

    from ...backends.built import Built

__all__ = ["ENGINES", "measure"]

ENGINES = ("reconvene", "tvm-default", "eager")


def measure(
    variants: Mapping[str, tuple[fx.GraphModule, Sequence[Any]]],
    *,
    target: str = "host",
    threads: int = 1,
    repeat: int = 50,
    engines: Sequence[str] = ENGINES,
    built: Mapping[str, Built] | None = None,
) -> list[Latency]:
    """Latency of every engine and variant, grouped by engine.

    Args:
        variants: name, such as ``dense``, to graph and inputs.
        target: what the TVM engines compile for; it must run here.
        threads: of TVM's and of PyTorch's pool.
        repeat: runs after warm-up. Slow calls are repeated less; the rows say how often.
        engines: of `ENGINES`.
        built: by name, variants that `reconvene` has compiled already, for these inputs, target and threads.

    Raises:
        InputError: the target does not run here, or a model cannot be compiled.
    """
    from ...backends.measure import time_calls, torch_threads

    calls: dict[tuple[str, str], Callable[[], object]] = {}
    for engine in engines:
        for name, (module, inputs) in variants.items():
            with stage(f"preparing {name} for {engine}"):
                done = (built or {}).get(name) if engine == "reconvene" else None
                if done is not None:
                    calls[engine, name] = done.prepared(*inputs)
                else:
                    calls[engine, name] = prepared(engine, module, tuple(inputs), target, threads)
    batch = batch_of(next(iter(variants.values()))[1])
    with stage(f"measuring {', '.join(variants)}"), torch_threads(threads):
        keyed = {f"{engine} {name}": call for (engine, name), call in calls.items()}
        timings = time_calls(keyed, repeat, threads=threads, batch=batch)
    rows = []
    for engine, name in calls:
        found = timings[f"{engine} {name}"]
        rows.append(
            Latency(
                engine=engine,
                variant=name,
                median_ms=found.median_ms,
                p10_ms=found.p10_ms,
                p90_ms=found.p90_ms,
                repeats=found.repeats,
                threads=found.threads,
                batch=found.batch,
            )
        )
    return rows


def prepared(
    engine: str, module: fx.GraphModule, inputs: tuple[Any, ...], target: str, threads: int
) -> Callable[[], object]:
    """One call of `module` on `engine`, everything but the call itself done already."""
    if engine == "eager":
        return lambda: eager(module, inputs)
    from ...backends.compile import compile as compile_graph

    pipeline: Any = "tvm-default" if engine == "tvm-default" else "reconvene"
    return compile_graph(module, inputs, target, threads=threads, pipeline=pipeline).prepared(*inputs)


def eager(module: fx.GraphModule, inputs: tuple[Any, ...]) -> object:
    with torch.inference_mode():
        return module(*inputs)


def batch_of(inputs: Sequence[Any]) -> int:
    shape: Sequence[int] = getattr(inputs[0], "shape", ()) if inputs else ()
    return int(shape[0]) if len(shape) else 1
