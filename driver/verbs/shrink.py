"""``reconvene shrink``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.files import read_text
from ...frontend.base.json_text import parse_json
from ...frontend.base.progress import stage
from ...frontend.program_file import load_program, save_program
from ...frontend.stored_compute import Compute
from ..answer import Answer, files_line, table
from ..own_data import parse_colours
from ..shrinking.course import RL_PRUNER, Settings, settings_of
from ..shrinking.log import rows, write_log
from ..shrinking.shrink import Task, accuracy_on_tests, model_of, shrink
from ..shrinking.steps import SHRINKING_FILE, Step
from ..training.presets import Preset
from .settings import method_settings
from .trainings import TrainingRequest, machine_asked, prepared

__all__ = ["Request", "machine_asked", "parse_colours", "run"]


@dataclass(frozen=True, kw_only=True)
class Request(TrainingRequest):
    """What ``reconvene shrink`` is told; see its help."""

    rule: str = RL_PRUNER
    sparsity: float = 0.6
    reward: str = "accuracy"
    target: str | None = None
    ignore: tuple[str, ...] = ()

    @property
    def preset_name(self) -> str:
        return self.preset or f"{RL_PRUNER}-laptop"

    def settings_asked(self) -> Settings:
        """The preset with all that was said beside it. Raises InputError if something makes no sense."""
        asked: dict[str, Any] = {"rule": self.rule, "sparsity": self.sparsity, "ignore": self.ignore}
        changes = method_settings(None, self.settings)
        for name in changes.keys() & asked.keys():
            raise InputError(f"--set {name} says what --{name} is for; say it there")
        return settings_of(self.preset_name, self.reward, {**asked, **changes})

    def chosen(self) -> Preset:
        return self.settings_asked().preset


def run(request: Request) -> Answer:
    settings = request.settings_asked()
    if settings.needs_target and request.target is None:
        raise InputError("this rule or reward counts the time on a target; name it, such as --target rpi4")
    if request.target is not None:
        from ...backends.machines.targets import find_target

        find_target(request.target)
    told = prepared(request, "-shrunk")
    task = Task(
        told.module, told.loaded.example_inputs, told.training, told.test, settings, told.folder, request.target,
        told.teacher, request.machine, request.seed, told.measure, request.workers, told.facts, request.checkpoint_every,
    )  # fmt: skip
    steps: list[Step] = []
    for step in shrink(task):
        steps.append(step)
        write_log(told.folder, steps, parse_json(read_text(told.folder / SHRINKING_FILE))["settings"])
    first, last = steps[0], steps[-1]
    with stage("testing"):
        accuracies = accuracy_on_tests(task, first), accuracy_on_tests(task, last)
    with stage("writing"):
        module, _ = load_program(model_of(told.folder, last))
        compute = Compute.made(first.macs, last.macs, told.loaded.compute)
        origin = {"model": told.loaded.name, **settings.recorded(), "target": request.target, "steps": rows(steps)}
        notes: dict[str, Any] = {"compute": compute, "data": told.facts, "origin": origin}
        save_program(module, told.loaded.example_inputs, told.folder / "model.pt2", **notes)
    names = {"model": "model.pt2", "log": "log.csv", "history": "log.json", "pictures": "steps.html"}
    files = {what: str(told.folder / name) for what, name in names.items()}
    metric = told.measure.name
    data = {
        "model": told.loaded.name,
        "data": told.data_name,
        "preset": request.preset_name,
        "settings": settings.recorded(),
        "target": request.target,
        "metric": metric,
        "before": accuracies[0],
        "after": accuracies[1],
        "steps": rows(steps),
        "files": files,
    }

    def show(console: Console) -> None:
        console.print(steps_table(steps))
        form = "{:.1%}" if metric == "accuracy" else "{:.4g}"
        console.print(
            f"test {metric} {form.format(accuracies[0])} before and {form.format(accuracies[1])} after", markup=False
        )
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer(data, show)


def steps_table(steps: list[Step]) -> object:
    """One line for each step; accuracies are those on images held out of the training."""
    lines = rows(steps)
    timed = ["latency"] if "latency" in lines[0] else []
    numbers = ("filters", "MACs", "parameters", *timed, "pruned", "trained", "seconds")
    made = table("step", *numbers, right=numbers)
    for line in lines:
        seconds = sum(line[f"{phase}_seconds"] for phase in ("search", "removal", "training"))
        made.add_row(
            str(line["step"]),
            f"{line['filters']:,}",
            f"{line['macs']:,}",
            f"{line['parameters']:,}",
            *(f"{line[name]:.1%}" for name in timed),
            f"{line['pruned']:.1%}",
            f"{line['after']:.1%}",
            f"{seconds:.1f}",
        )
    return made
