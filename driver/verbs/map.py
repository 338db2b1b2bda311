"""``reconvene map``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...passes.pruning.mapping import MappingRules
from ...passes.pruning.structure_plan import StructurePlan
from ..answer import Answer, files_line, table
from ..mapping import mapped
from ..models import load_model
from ..outputs import check_different, check_file, suffixed
from ..wording import cost, times

__all__ = ["Request", "plan_table", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene map`` is told; see its help."""

    model: str
    target: str = "host"
    sparsity: float = 0.8
    beta: float = 0.2
    data: str = "hard"
    by: str = "model"
    on: str | None = None
    key_file: Path | None = None
    ignore: tuple[str, ...] = ()
    output: Path | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0


def run(request: Request) -> Answer:
    rules = MappingRules(request.sparsity, request.beta, request.data, ignore=request.ignore)
    check_file(request.output)
    check_different(request.model, request.output)
    place = None
    if request.on is not None:
        from ...backends.boards.place import parse_place

        place = parse_place(request.on, request.key_file)
    loaded = load_model(request.model, request.inputs, request.seed)
    path = request.output or suffixed(loaded.beside, "-structures.json")
    check_file(path)
    plan = mapped(loaded.module, loaded.example_inputs, request.target, rules, request.by, place)
    plan.save(path)
    files = {"plan": str(path)}

    def show(console: Console) -> None:
        console.print(plan_table(plan))
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({"model": loaded.name, "plan": json.loads(plan.to_json()), "files": files}, show)


def plan_table(plan: StructurePlan) -> Table:
    """One line for every layer."""
    numbers = ("zeros", "dense", "with zeros", "gain")
    made = table("layer", "structure", *numbers, "because", right=numbers, title="Structures by layer")
    for layer in plan.layers:
        gain = times(layer.dense or 0.0, layer.sparse or 0.0) if layer.structure else ""
        sparse = cost(layer.sparse, plan.unit) if layer.structure else ""
        share = f"{layer.share:.0%}" if layer.structure else ""
        made.add_row(
            layer.name.removesuffix(".weight"), layer.scheme, share, cost(layer.dense, plan.unit), sparse, gain,
            layer.reason,
        )  # fmt: skip
    whole = (cost(plan.dense, plan.unit), cost(plan.sparse, plan.unit), times(plan.dense, plan.sparse))
    made.add_row("all layers", "", "", *whole, "")
    return made
