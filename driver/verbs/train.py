"""``reconvene train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from ...frontend.base.progress import stage
from ...frontend.data.datasets import find_dataset
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import save_program
from ..answer import Answer, files_line, table
from ..masks import read_masks
from ..models import load_model
from ..outputs import check_folder, suffixed
from ..training.loop import Machine, Trained, train
from ..training.presets import find_preset
from .settings import method_settings

__all__ = ["Machine", "Options", "train_verb"]


@dataclass(frozen=True)
class Options:
    """What ``reconvene train`` is told beside MODEL; see its help."""

    dataset: str
    data: Path | None
    preset: str
    settings: tuple[str, ...]
    masks: Path | None
    machine: Machine
    width: float
    checkpoint_every: int
    restart: bool
    seed: int


def train_verb(model: str, inputs: Sequence[str], options: Options, output: Path | None) -> Answer:
    preset = find_preset(options.preset).changed(method_settings(None, options.settings))
    options.machine.checked()
    dataset = find_dataset(options.dataset)
    if output is not None:
        check_folder(output)
    masks = None if options.masks is None else read_masks(options.masks)
    loaded = load_model(model, inputs, options.seed, ("batch",), dataset=options.dataset, width=options.width)
    folder = output or suffixed(loaded.beside, "-training")
    check_folder(folder)
    with stage(f"reading {options.dataset}"):
        training, test = (dataset.load(options.data, split) for split in ("train", "test"))
    assert isinstance(loaded.module, CapturedModule)
    done = train(
        loaded.module,
        training,
        test,
        preset,
        folder,
        masks=masks,
        machine=options.machine,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        restart=options.restart,
    )
    with stage("writing"):
        save_program(done.module, loaded.example_inputs, folder / "model.pt2")
    files = {"model": folder / "model.pt2", "log": folder / "log.csv", "curves": folder / "curves.html"}
    written = {what: str(path) for what, path in files.items()}
    data = {
        "model": loaded.name,
        "data": training.name,
        "preset": options.preset,
        "settings": {**asdict(preset), "milestones": list(preset.milestones)},
        "seconds": done.seconds,
        "rows": list(done.rows),
        "files": written,
    }

    def show(console: Console) -> None:
        console.print(log_table(done))
        console.print(files_line(written), markup=False, soft_wrap=True)

    return Answer(data, show)


def log_table(done: Trained) -> object:
    """One line for each epoch."""
    numbers = ("epoch", "rate", "train loss", "train accuracy", "test loss", "test accuracy", "seconds")
    made = table(*numbers, right=numbers)
    for row in done.rows:
        made.add_row(
            str(row["epoch"]),
            f"{row['rate']:.4g}",
            f"{row['train_loss']:.3f}",
            f"{row['train_accuracy']:.1%}",
            f"{row['test_loss']:.3f}",
            f"{row['test_accuracy']:.1%}",
            f"{row['seconds']:.1f}",
        )
    return made
