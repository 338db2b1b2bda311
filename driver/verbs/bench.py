"""``reconvene bench``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...backends.built import load_bundle
from ...backends.bundles.execution import benchmark_bundle
from ...backends.bundles.read import open_bundle
from ...backends.state import described as described_state
from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.state import state_of
from ..answer import Answer, says
from ..asked import multiple_of
from ..models import load_model
from ..reports.tables import latency_table
from ..wording import kept
from .bundles import board_facts, check_threads_of, checked_place, emulator_for, limits, lost_lines
from .signatures import signed_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...backends.built import Built
    from ...backends.measure import Timing

__all__ = ["Request", "run"]

ROUNDS = 50
"""Measured runs, unless a number is given."""


@dataclass(frozen=True)
class Request:
    """What ``reconvene bench`` is told; see its help."""

    model: str
    """A model, or the folder of a bundle."""
    against: str | None = None
    target: str = "host"
    threads: int | None = None
    batch: int | None = None
    repeat: int | None = None
    on: str | None = None
    key_file: Path | None = None
    public_key: str | None = None
    timeout: int = 600
    """Seconds."""
    engines: tuple[str, ...] = ()
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0


def run(request: Request) -> Answer:
    is_bundle = request.on is not None or Path(request.model).is_dir()
    return _bench_bundle(request) if is_bundle else _bench_models(request)


def _bench_models(request: Request) -> Answer:
    from ..reports.latency import ENGINES, measure

    against, target = request.against, request.target
    chosen = tuple(dict.fromkeys(request.engines)) or ENGINES
    multiple_of(target)
    unknown = [engine for engine in chosen if engine not in ENGINES]
    if unknown:
        raise InputError(f"no engine is called '{unknown[0]}'; there are {', '.join(ENGINES)}")
    models = {"compacted" if against else "model": request.model, **({"dense": against} if against else {})}
    loaded = {
        variant: load_model(
            name,
            request.inputs,
            request.seed,
            batch=request.batch,
            weights=request.weights if name is request.model else None,
        )
        for variant, name in models.items()
    }
    variants = {variant: (entry.module, entry.example_inputs) for variant, entry in reversed(loaded.items())}
    repeat = request.repeat or ROUNDS
    threads = request.threads or 1
    built = _built(variants, target, threads) if "reconvene" in chosen else {}
    rows = measure(variants, target=target, threads=threads, repeat=repeat, engines=chosen, built=built)
    state = {variant: sorted(state_of(entry.module)) for variant, entry in loaded.items()}
    general = {variant: _general(made, variants[variant][1]) for variant, made in built.items()}
    data = {
        "models": models,
        "target": target,
        "state": state,
        "latency": [dataclasses.asdict(row) for row in rows],
        "general": {variant: found for variant, (found, _) in general.items()},
    }
    lines = [f"{variant} keeps from call to call: {', '.join(names)}" for variant, names in state.items() if names]
    lines += [f"{variant}: {line}" for variant, (_, line) in general.items() if line]

    def show(console: Console) -> None:
        console.print(latency_table(rows))
        says(*lines)(console)

    return Answer(data, show)


def _built(variants: Mapping[str, tuple[Any, Any]], target: str, threads: int) -> dict[str, Built]:
    from ...backends.compile import compile as compile_graph

    found = {}
    for variant, (module, inputs) in variants.items():
        with stage(f"preparing {variant} for reconvene"):
            found[variant] = compile_graph(module, tuple(inputs), target, threads=threads)
    return found


def _general(built: Built, inputs: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
    """How much of the time is general code, measured, and whose, modelled; and that in a line if it is worth one."""
    from ...backends.choosing.general_code import told
    from ...backends.kernel_seconds import general_share

    share = general_share(built, *inputs) if built.general else 0.0
    operators = [dataclasses.asdict(code) for code in built.general]
    return {"share": share, "operators": operators}, told(built.general, share)


def _bench_bundle(request: Request) -> Answer:
    """On an emulated board it only runs, since emulated seconds say nothing of the board's."""
    folder, on, threads = request.model, request.on, request.threads
    signed = signed_bundle(folder, request.public_key)
    bundle = open_bundle(folder, manifest_sha256=signed)
    check_threads_of(bundle, threads)
    data: dict[str, Any] = {"bundle": folder, "target": bundle.target.name, "state": described_state(bundle.state)}
    keeps = kept(data["state"])
    if on is not None and on != "qemu":
        from ...backends.boards.jobs import benchmark_on_board

        rounds, place = request.repeat or ROUNDS, checked_place(on, request.key_file)
        with stage(f"running on {on}"):
            done = benchmark_on_board(bundle, rounds, place, threads=threads, limits=limits(request.timeout))
        facts = board_facts(done)
        found = {**data, "repeats": rounds, "emulated": None, **facts, "timing": dataclasses.asdict(done.value)}
        return Answer(found, says(*lost_lines(facts), f"board {done.board}: {described(done.value)}", *keeps))
    emulator = emulator_for(bundle, on)
    rounds = request.repeat or (1 if emulator else ROUNDS)
    data["repeats"] = rounds
    timing: Timing | None
    with stage("running"):
        if bundle.runtime == "python" and emulator is None:
            timing = load_bundle(folder, manifest_sha256=signed).benchmark(repeat=rounds, threads=threads)
        else:
            timing = benchmark_bundle(bundle, rounds, 0 if emulator else 5, emulator, threads)
    if timing is None:
        cpu = emulator.cpu if emulator else ""
        line = f"ran {rounds} times on an emulated {cpu}; an emulator's time is not the board's, so none is given"
        return Answer({**data, "emulated": cpu, "timing": None}, says(line, *keeps))
    return Answer({**data, "emulated": None, "timing": dataclasses.asdict(timing)}, says(described(timing), *keeps))


def described(timing: Timing) -> str:
    spread = f"p10 {timing.p10_ms:.3f}, p90 {timing.p90_ms:.3f}; {timing.repeats} runs, {timing.threads} threads"
    return f"median {timing.median_ms:.3f} ms ({spread})"
