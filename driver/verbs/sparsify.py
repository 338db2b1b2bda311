"""``reconvene sparsify``."""

from __future__ import annotations

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
from ..training.presets import find_preset
from .settings import method_settings
from .train import Options

__all__ = ["sparsify_verb"]


def sparsify_verb(model: str, ladder: Ladder, options: Options, output: Path | None) -> Answer:
    ladder.check()
    preset = find_preset(options.preset).changed(method_settings(None, options.settings))
    options.machine.checked()
    dataset = find_dataset(options.dataset)
    if output is not None:
        check_folder(output)
    loaded = load_model(model, (), options.seed, ("batch",), dataset=options.dataset, width=options.width)
    folder = output or suffixed(loaded.beside, "-levels")
    check_folder(folder)
    with stage(f"reading {options.dataset}"):
        training, test = (dataset.load(options.data, split) for split in ("train", "test"))
        batches = scoring_batches(loaded, ladder.method, options.dataset, options.data, False, options.seed)
    assert isinstance(loaded.module, CapturedModule)
    levels = tuple(
        train_levels(
            loaded.module, loaded.example_inputs, training, test, preset, ladder, folder, machine=options.machine,
            seed=options.seed, batches=batches, checkpoint_every=options.checkpoint_every,
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
