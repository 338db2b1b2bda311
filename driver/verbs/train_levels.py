"""``reconvene train-levels``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from ...frontend.base.progress import stage
from ...frontend.data.datasets import find_dataset
from ...frontend.graph_module import CapturedModule
from ..answer import Answer, files_line, table
from ..models import load_model
from ..outputs import check_folder, suffixed
from ..scoring_data import scoring_batches
from ..training.levels import Ladder, Level, train_levels
from ..training.loop import Hardware
from ..training.presets import find_preset
from .settings import method_settings

__all__ = ["Hardware", "Ladder", "Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene train-levels`` is told; see its help."""

    model: str
    ladder: Ladder
    """Which levels there are, and how their masks are found."""
    dataset: str = "cifar10"
    data: Path | None = None
    preset: str = "laptop"
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``, of the preset."""
    machine: Hardware = field(default_factory=Hardware)
    width: float = 1.0
    checkpoint_every: int = 100
    """Steps."""
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    """A folder."""
    seed: int = 0


def run(request: Request) -> Answer:
    ladder = request.ladder
    ladder.check()
    preset = find_preset(request.preset).changed(method_settings(None, request.settings))
    request.machine.checked()
    dataset = find_dataset(request.dataset)
    if request.output is not None:
        check_folder(request.output)
    loaded = load_model(
        request.model, request.inputs, request.seed, ("batch",), dataset=request.dataset, width=request.width
    )
    folder = request.output or suffixed(loaded.beside, "-levels")
    check_folder(folder)
    with stage(f"reading {request.dataset}"):
        training, test = (dataset.load(request.data, split) for split in ("train", "test"))
        score = ladder.chosen.scored_by
        batches = scoring_batches(loaded, score, request.dataset, request.data, False, request.seed)
    assert isinstance(loaded.module, CapturedModule)
    levels = tuple(
        train_levels(
            loaded.module, loaded.example_inputs, training, test, preset, ladder, folder, machine=request.machine,
            seed=request.seed, batches=batches, checkpoint_every=request.checkpoint_every,
        )
    )  # fmt: skip
    files = {"levels": str(folder)}
    data = {
        "model": loaded.name,
        "data": training.name,
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
