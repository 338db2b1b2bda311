"""``reconvene explore``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...backends.boards.place import parse_place
from ...backends.machines.targets import Target, find_target
from ...passes.pruning.methods.constrained import ConstrainedMethod
from ...passes.pruning.methods.retraining import OneShotRetraining
from ..answer import Answer, files_line, table
from ..exploring.page import CLOCKS
from ..exploring.result import Exploration
from ..exploring.run import FRONT, PAGE, Task, explored
from ..exploring.settings import Settings, parse_budgets, shrinking_by
from ..own_data import parse_colours
from ..training.recipes import preset_method
from ..wording import count, milliseconds, size
from .trainings import TrainingRequest, machine_asked, prepared
from .zeros_asked import ZerosAsked

__all__ = ["Request", "machine_asked", "parse_colours", "run"]

_USUAL = Settings()


@dataclass(frozen=True, kw_only=True)
class Request(TrainingRequest):
    """What ``reconvene explore`` is told; see its help."""

    target: str = "host"
    budget: str = ",".join(map(str, _USUAL.budgets))
    variants: tuple[str, ...] = ()
    """None: the usual ones."""
    method: str | None = None
    """None: that of the preset, or else one-shot."""
    difficulty: str = _USUAL.difficulty
    beta: float = _USUAL.beta
    ignore: tuple[str, ...] = ()
    shrinking: str = "rl-pruner-laptop"
    """A preset."""
    timed_by: str = _USUAL.timed_by
    told_by: str | None = None
    on: str | None = None
    key_file: Path | None = None

    def asked(self) -> tuple[Request, Settings]:
        """The same with the settings of the training alone, and what is explored.

        Raises:
            InputError: something makes no sense.
        """
        brought = self.method or (None if preset_method(self.preset_name) else OneShotRetraining.name)
        method, rest = ZerosAsked(method=brought).chosen(self.preset_name, self.settings)
        assert isinstance(method, ConstrainedMethod)
        request = dataclasses.replace(self, settings=rest)
        settings = Settings(
            parse_budgets(self.budget), self.variants or _USUAL.variants, request.chosen(), method, self.difficulty,
            self.beta, self.ignore, shrinking_by(self.shrinking), timed_by=self.timed_by, told_by=self.told_by,
        )  # fmt: skip
        return request, settings


def run(request: Request) -> Answer:
    board = None if request.on is None else parse_place(request.on, request.key_file)
    target: Target = find_target(request.target)
    request, settings = request.asked()
    settings.check(target, board is not None)
    told = prepared(request, "-explored")
    task = Task(
        told.module, told.loaded.example_inputs, told.training, told.test, settings, told.folder, target,
        told.loaded.name, board, told.teacher, request.machine, request.seed, told.measure, request.workers, told.facts,
        request.checkpoint_every,
    )  # fmt: skip
    found = explored(task)
    files = {"page": str(told.folder / PAGE), "front": str(told.folder / FRONT)}
    data: dict[str, Any] = {**found.to_dict(), "data": told.data_name, "preset": request.preset_name, "files": files}

    def show(console: Console) -> None:
        console.print(variants_table(found))
        console.print(f"times are {CLOCKS[found.told_by]}", markup=False)
        for refusal in found.refusals:
            line = f"not reached: {refusal.kind} at {refusal.budget:g}: {refusal.reason}"
            console.print(line, markup=False, soft_wrap=True)
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer(data, show)


def variants_table(found: Exploration) -> Table:
    """One line for every network, for terminals of 80 columns."""
    numbers = ("budget", found.metric, found.unit, "share", "MACs", "bytes", "zeros")
    made = table("variant", *numbers, "front", right=numbers, title=f"{found.title} on {found.target}")
    made.box, made.padding = box.SIMPLE_HEAD, (0, 1, 0, 0)
    form, best = "{:.1%}" if found.metric == "accuracy" else "{:.4g}", found.front
    for one in found.variants:
        time, dense = one.time or 0.0, found.dense.time
        made.add_row(
            one.kind,
            "" if one.budget is None else f"{one.budget:g}",
            form.format(one.accuracy),
            milliseconds(time).removesuffix(" ms") if found.unit == "ms" else count(round(time)),
            f"{time / dense:.2f}" if dense else "",
            count(one.needed_macs),
            size(one.bytes),
            f"{one.zeros:.1%}",
            "yes" if one.name in best else "",
        )
    return made
