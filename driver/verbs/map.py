"""``reconvene map``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...frontend.base.errors import InputError
from ...passes.pruning.mapping import MappingRules
from ...passes.pruning.search.structure_search import StructureSearch
from ...passes.pruning.structure_plan import StructurePlan
from ..answer import Answer, files_line, table
from ..mapping import check_no_rules, mapped
from ..models import load_model
from ..outputs import check_different, check_file, suffixed
from ..own_data import Taker, Wanted, open_data
from ..searched_mapping import HeldOut
from ..wording import cost, times
from .recovery import recovery_options
from .settings import method_settings

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
    budget: float | None = None
    """Of a search; None: by rules. What follows is for a search."""
    calibration: str | None = None
    dataset: str | None = None
    training_data: str | None = None
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``."""
    output: Path | None = None
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    seed: int = 0

    @property
    def rules(self) -> MappingRules:
        return MappingRules(self.sparsity, self.beta, self.data, ignore=self.ignore)

    @property
    def has_data(self) -> bool:
        return self.dataset is not None or self.training_data is not None

    def search(self) -> StructureSearch | None:
        """What is searched for, if anything. Raises InputError if something makes no sense beside it, or without it."""
        if self.budget is None:
            said = {"--calibration": self.calibration, "--dataset": self.dataset, "--training-data": self.training_data}
            for option, value in {**said, "--set": self.settings or None}.items():
                if value is not None:
                    raise InputError(f"{option} is for a search; say --budget as well, such as --budget 0.35")
            return None
        check_no_rules(self.rules)
        if self.has_data and self.calibration is not None:
            raise InputError("--calibration has no meaning beside images; leave one of them out")
        return StructureSearch(self.budget).changed(method_settings(None, self.settings))


def run(request: Request) -> Answer:
    rules, search = request.rules, request.search()
    _, calibration = recovery_options(None, request.calibration, ())
    check_file(request.output)
    check_different(request.model, request.output)
    place = None
    if request.on is not None:
        from ...backends.boards.place import parse_place

        place = parse_place(request.on, request.key_file)
    data = open_data(Wanted(request.dataset, request.training_data)) if request.has_data else None
    # Images are looked at many together, where the model allows that.
    fit = None if data is None or Path(request.model).is_file() else data.fit(request.inputs)
    loaded = load_model(request.model, request.inputs, request.seed, dataset=fit, weights=request.weights)
    path = request.output or suffixed(loaded.beside, "-structures.json")
    check_file(path)
    held_out = None if data is None else HeldOut(data.load("train", Taker.of(loaded)), measure=data.measure)
    plan = mapped(
        loaded.module, loaded.example_inputs, request.target, rules, request.by, place,
        search=search, calibration=calibration, held_out=held_out, seed=request.seed,
    )  # fmt: skip
    plan.save(path)
    files = {"plan": str(path)}

    def show(console: Console) -> None:
        console.print(plan_table(plan))
        if search is not None:
            console.print(_found(plan), markup=False)
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer({"model": loaded.name, "plan": json.loads(plan.to_json()), "files": files}, show)


def _found(plan: StructurePlan) -> str:
    """What a search came to."""
    said = plan.made
    share = plan.sparse / plan.dense if plan.dense else 1.0
    return (
        f"{share:.3f} of the dense time, {said['budget']} was asked for; {said['quality']} {said['found']:.4g} on {said['on']},"
        f" and {said['begun at']:.4g} where the search began; {said['tried']} networks were tried"
    )


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
