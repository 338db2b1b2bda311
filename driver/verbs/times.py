"""``reconvene times``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...frontend.base.errors import InputError
from ...passes.structures import check_share
from ..answer import Answer, table
from ..layer_tables import LayerRow, layer_rows, structures_alone, table_of
from ..models import load_model
from ..wording import count

if TYPE_CHECKING:
    from ...backends.latency_table.measuring import LayerTime

__all__ = ["Request", "run", "shares_asked"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene times`` is told; see its help."""

    model: str
    target: str = "host"
    structures: tuple[str, ...] = ()
    shares: str = "0.5,0.7,0.8,0.9"
    """Numbers with commas."""
    by: str = "model"
    on: str | None = None
    key_file: Path | None = None
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0


def run(request: Request) -> Answer:
    structures, shares = structures_alone(request.structures), shares_asked(request.shares)
    loaded = load_model(request.model, request.inputs, request.seed, weights=request.weights)
    place = None
    if request.on is not None:
        from ...backends.boards.place import parse_place

        place = parse_place(request.on, request.key_file)
    _, found = table_of(loaded.module, loaded.example_inputs, request.target, request.by, place)
    rows = layer_rows(found, structures, shares)
    if not rows:
        raise InputError(
            "no layer of this model has a known time: kernels of ours are for convolutions of lines and images, linear and"
            " recurrent layers"
        )
    data = {
        "model": loaded.name,
        "target": request.target,
        "by": request.by,
        "unit": found.unit,
        "layers": [_layer(row) for row in rows],
    }

    def show(console: Console) -> None:
        console.print(times_table(rows, found.unit))
        for row in rows:
            for structure in row.structures:
                if structure.reason:
                    console.print(
                        f"no {structure.structure} in {_some(row.names)}: {structure.reason}",
                        markup=False,
                        soft_wrap=True,
                    )

    return Answer(data, show)


def shares_asked(text: str) -> tuple[float, ...]:
    """Shares of zeros, with commas between. Raises InputError for what is none."""
    try:
        shares = tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise InputError(f"'{text}' are no shares; write numbers with commas, such as 0.5,0.7,0.8,0.9") from None
    for share in shares:
        check_share(share)
    return shares


def times_table(rows: tuple[LayerRow, ...], unit: str) -> object:
    """One line for each form of layers and structure."""
    shares = sorted({share for row in rows for structure in row.structures for share in structure.times})
    numbers = ("dense", *(f"{share:.3g}" for share in shares))
    title = f"Time by share of zeros, in {'ms' if unit == 's' else unit}"
    made = table("layers", "structure", *numbers, "kernels", right=numbers, title=title)
    for row in rows:
        dense = _figure(row.dense, unit)
        fitting = [structure for structure in row.structures if structure.times]
        named = f"{_some(row.names)}\n{'; '.join(dict.fromkeys(row.layer))}"
        if not fitting:
            made.add_row(named, "", dense, *("" for _ in shares), row.dense.kernel)
        for place, structure in enumerate(fitting):
            times = [structure.times.get(share) for share in shares]
            kernels = dict.fromkeys([row.dense.kernel, *(time.kernel for time in times if time is not None)])
            cells = [_figure(time, unit) for time in times]
            made.add_row("" if place else named, str(structure.structure), dense, *cells, ", ".join(kernels))
    return made


def _figure(time: LayerTime | None, unit: str) -> str:
    if time is None:
        return ""
    return f"{1e3 * time.time:.3g}" if unit == "s" else count(round(time.time))


def _some(names: tuple[str, ...]) -> str:
    first = names[0].removesuffix(".weight")
    return first if len(names) == 1 else f"{first} and {len(names) - 1} more"


def _layer(row: LayerRow) -> dict[str, Any]:
    return {
        "names": list(row.names),
        "layer": list(row.layer),
        "dense": dataclasses.asdict(row.dense),
        "structures": [
            {
                "structure": str(structure.structure),
                "reason": structure.reason,
                "times": [{"share": share, **dataclasses.asdict(time)} for share, time in structure.times.items()],
            }
            for structure in row.structures
        ],
    }
