"""``reconvene train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.datasets import find_dataset
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import Compute, save_program
from ...passes.canonicalize import canonicalize
from ...passes.dependency import dependency_view
from ...passes.sizes import examples_counted, total_size
from ..answer import Answer, files_line, table
from ..masks import read_masks
from ..models import LoadedModel, load_model
from ..outputs import check_folder, suffixed
from ..training.loop import Hardware, Trained, train
from ..training.presets import check_compute, find_preset
from .settings import method_settings

__all__ = ["Hardware", "Request", "run"]


@dataclass(frozen=True)
class Request:
    """What ``reconvene train`` is told; see its help."""

    model: str
    dataset: str = "cifar10"
    data: Path | None = None
    preset: str = "laptop"
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``, of the preset."""
    masks: Path | None = None
    machine: Hardware = field(default_factory=Hardware)
    width: float = 1.0
    checkpoint_every: int = 100
    """Steps."""
    restart: bool = False
    compute: str = "epochs"
    """Of `training.presets.COMPUTE`."""
    dense_macs: int | None = None
    """Multiply-accumulates of the dense network on one image; None: as the model's file says."""
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    """A folder."""
    seed: int = 0


def run(request: Request) -> Answer:
    preset = find_preset(request.preset).changed(method_settings(None, request.settings))
    check_compute(request.compute)
    request.machine.checked()
    dataset = find_dataset(request.dataset)
    if request.output is not None:
        check_folder(request.output)
    masks = None if request.masks is None else read_masks(request.masks)
    loaded = load_model(
        request.model, request.inputs, request.seed, ("batch",), dataset=request.dataset, width=request.width
    )
    if request.compute == "equal":
        compute = compared(loaded, request.dense_macs)
        preset = preset.stretched(compute.dense_macs, compute.macs)
    folder = request.output or suffixed(loaded.beside, "-training")
    check_folder(folder)
    with stage(f"reading {request.dataset}"):
        training, test = (dataset.load(request.data, split) for split in ("train", "test"))
    assert isinstance(loaded.module, CapturedModule)
    done = train(
        loaded.module,
        training,
        test,
        preset,
        folder,
        masks=masks,
        machine=request.machine,
        seed=request.seed,
        checkpoint_every=request.checkpoint_every,
        restart=request.restart,
    )
    with stage("writing"):
        save_program(done.module, loaded.example_inputs, folder / "model.pt2", compute=loaded.compute)
    files = {"model": folder / "model.pt2", "log": folder / "log.csv", "curves": folder / "curves.html"}
    written = {what: str(path) for what, path in files.items()}
    data = {
        "model": loaded.name,
        "data": training.name,
        "preset": request.preset,
        "compute": request.compute,
        "settings": {**asdict(preset), "milestones": list(preset.milestones)},
        "seconds": done.seconds,
        "rows": list(done.rows),
        "files": written,
    }

    def show(console: Console) -> None:
        console.print(log_table(done))
        console.print(files_line(written), markup=False, soft_wrap=True)

    return Answer(data, show)


def compared(loaded: LoadedModel, dense_macs: int | None) -> Compute:
    """What the network computes beside the dense one: `dense_macs` on an image, or what its file says.

    Raises:
        InputError: nothing says it.
    """
    if dense_macs is None:
        if loaded.compute is None:
            raise InputError(
                f"nothing says what the dense network of '{loaded.name}' computes, which --compute equal compares with: train"
                " the .pt2 that 'reconvene prune' wrote, or give the dense network's multiply-accumulates on one image with"
                " --dense-macs"
            )
        return loaded.compute
    view = dependency_view(canonicalize(loaded.module))
    return Compute(dense_macs * examples_counted(loaded.module), total_size(view, loaded.module).macs)


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
