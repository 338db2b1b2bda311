"""``reconvene bench``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.state import state_of
from .. import api
from ..answer import Answer, says
from ..models import load_model
from ..reports.tables import latency_table

__all__ = ["run"]


def run(
    model: str,
    against: str | None,
    inputs: Sequence[str],
    target: str,
    threads: int,
    batch: int | None,
    repeat: int,
    engines: Sequence[str],
    seed: int,
) -> Answer:
    from ..reports.latency import ENGINES, measure

    chosen = tuple(dict.fromkeys(engines)) or ENGINES
    api.multiple_of(target)
    unknown = [engine for engine in chosen if engine not in ENGINES]
    if unknown:
        raise InputError(f"no engine is called '{unknown[0]}'; there are {', '.join(ENGINES)}")
    models = {"compacted" if against else "model": model, **({"dense": against} if against else {})}
    loaded = {variant: load_model(name, inputs, seed, batch=batch) for variant, name in models.items()}
    variants = {variant: (entry.module, entry.example_inputs) for variant, entry in reversed(loaded.items())}
    rows = measure(variants, target=target, threads=threads, repeat=repeat, engines=chosen)
    state = {variant: sorted(state_of(entry.module)) for variant, entry in loaded.items()}
    data = {"models": models, "target": target, "state": state, "latency": [dataclasses.asdict(row) for row in rows]}
    lines = [f"{variant} keeps from call to call: {', '.join(names)}" for variant, names in state.items() if names]

    def show(console: Console) -> None:
        console.print(latency_table(rows))
        says(*lines)(console)

    return Answer(data, show)
