"""``reconvene train-levels``."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from ..answer import Answer, files_line, table
from ..own_data import parse_colours
from ..scoring_data import batches_of
from ..training.levels import Ladder, Level, train_levels
from .trainings import TrainingRequest, machine_asked, prepared

__all__ = ["Ladder", "Request", "machine_asked", "parse_colours", "run"]


@dataclass(frozen=True, kw_only=True)
class Request(TrainingRequest):
    """What ``reconvene train-levels`` is told; see its help."""

    ladder: Ladder
    """Which levels there are, and how their masks are found."""


def run(request: Request) -> Answer:
    ladder = request.ladder
    ladder.check()
    told = prepared(request, "-levels")
    batches = batches_of(told.training, ladder.chosen.scored_by, request.seed)
    levels = tuple(
        train_levels(
            told.module, told.loaded.example_inputs, told.training, told.test, told.preset, ladder, told.folder,
            machine=request.machine, seed=request.seed, batches=batches, teacher=told.teacher, measure=told.measure,
            workers=request.workers, facts=told.facts, checkpoint_every=request.checkpoint_every,
        )
    )  # fmt: skip
    files = {"levels": str(told.folder)}
    data = {
        "model": told.loaded.name,
        "data": told.data_name,
        "method": ladder.method,
        "share": ladder.share,
        "levels": [
            {
                "name": level.name, "model": str(level.model), "weights": level.weights, "zeros": level.zeros,
                "accuracy": level.accuracy, "seconds": level.seconds,
            }
            for level in levels
        ],
        "files": files,
    }  # fmt: skip

    def show(console: Console) -> None:
        console.print(levels_table(levels))
        console.print(files_line(files), markup=False, soft_wrap=True)

    return Answer(data, show)


def levels_table(levels: tuple[Level, ...]) -> object:
    numbers = ("weights", "not zero", "left", "test accuracy", "seconds")
    made = table("level", *numbers, right=numbers)
    for level in levels:
        left = level.weights - level.zeros
        made.add_row(
            level.name, f"{level.weights:,}", f"{left:,}", f"{left / level.weights:.2%}", f"{level.accuracy:.1%}",
            f"{level.seconds:.1f}",
        )  # fmt: skip
    return made
