"""``reconvene train``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.graph_module import CapturedModule
from ...frontend.program_file import save_program
from ...frontend.stored_compute import Compute
from ...passes.canonicalize import canonicalize
from ...passes.dependency import dependency_view
from ...passes.pruning.methods.base import TrainingMethod
from ...passes.sizes import examples_counted, total_size
from ..answer import Answer, files_line, table
from ..masks import read_masks
from ..models import LoadedModel
from ..own_data import parse_colours
from ..reports.tables import structure_table
from ..training.log import figures_in
from ..training.loop import Trained, train
from ..training.masks import Masks
from ..training.presets import check_compute
from .settings import structures_asked
from .trainings import Subject, TrainingRequest, machine_asked, prepared
from .zeros_asked import ZerosAsked, ZerosFound, as_json, structure_asked, zeros_found

__all__ = [
    "Request",
    "ZerosAsked",
    "machine_asked",
    "parse_colours",
    "run",
    "structure_asked",
    "structures_asked",
]

_MASKS = "masks.safetensors"


@dataclass(frozen=True, kw_only=True)
class Request(TrainingRequest):
    """What ``reconvene train`` is told; see its help."""

    masks: Path | None = None
    keep_zeros: bool = False
    """Whether weights of the model that are zero stay so."""
    restart: bool = False
    compute: str = "epochs"
    """Of `training.presets.COMPUTE`."""
    dense_macs: int | None = None
    """Multiply-accumulates of the dense network on one image; None: as the model's file says."""
    zeros: ZerosAsked = field(default_factory=ZerosAsked)


def run(request: Request) -> Answer:
    check_compute(request.compute)
    method, settings = request.zeros.chosen(request.preset_name, request.settings)
    for option, given in (("masks", request.masks is not None), ("keep-zeros", request.keep_zeros)):
        if method is not None and given:
            raise InputError(
                f"--{option} has no meaning with the method {method.name}, which finds its own zeros; leave one of them out"
            )
    masks = None if request.masks is None else read_masks(request.masks)
    told = prepared(replace(request, settings=settings), "-training")
    if request.keep_zeros:
        masks = dict(Masks.of(told.module).kept)
    preset = told.preset
    if request.compute == "equal":
        compute = compared(told.loaded, request.dense_macs)
        preset = preset.stretched(compute.dense_macs, compute.macs)
    done = train(
        told.module,
        told.training,
        told.test,
        preset,
        told.folder,
        masks=masks,
        method=method,
        teacher=told.teacher,
        measure=told.measure,
        workers=request.workers,
        machine=request.machine,
        seed=request.seed,
        checkpoint_every=request.checkpoint_every,
        restart=request.restart,
    )
    with stage("writing"):
        notes: dict[str, Any] = {"compute": told.loaded.compute, "data": told.facts}
        save_program(done.module, told.loaded.example_inputs, told.folder / "model.pt2", **notes)
        found = _found(method, told, done)
    files = {"model": "model.pt2", "log": "log.csv", "curves": "curves.html"}
    if found is not None:
        files["masks"] = _MASKS
    written = {what: str(told.folder / name) for what, name in files.items()}
    data = {
        "model": told.loaded.name,
        "data": told.data_name,
        "classes": None if told.facts is None else list(told.facts.classes),
        "preset": request.preset_name,
        "compute": request.compute,
        "settings": {**asdict(preset), "milestones": list(preset.milestones)},
        "teacher": request.teacher,
        "seconds": done.seconds,
        "rows": list(done.rows),
        **as_json(method, found),
        "files": written,
    }

    def show(console: Console) -> None:
        console.print(log_table(done))
        if found is not None and found.zeros:
            console.print(structure_table(found.zeros))
        for note in found.notes if found is not None else ():
            console.print(note, markup=False, soft_wrap=True)
        console.print(files_line(written), markup=False, soft_wrap=True)

    return Answer(data, show)


def _found(method: TrainingMethod | None, told: Subject, done: Trained) -> ZerosFound | None:
    if method is None:
        return None
    assert isinstance(done.module, CapturedModule)
    return zeros_found(method, told.module, done.module, told.folder / _MASKS)


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
    name, figures = done.metric, figures_in(done.rows)
    named = tuple(figure.replace("_", " ") for figure in figures)
    numbers = ("epoch", "rate", "train loss", f"train {name}", "test loss", f"test {name}", *named, "seconds")
    made = table(*numbers, right=numbers)
    form = "{:.1%}" if name == "accuracy" else "{:.4g}"
    for row in done.rows:
        made.add_row(
            str(row["epoch"]),
            f"{row['rate']:.4g}",
            f"{row['train_loss']:.3f}",
            form.format(row[f"train_{name}"]),
            f"{row['test_loss']:.3f}",
            form.format(row[f"test_{name}"]),
            *(f"{row[figure]:.4g}" for figure in figures),
            f"{row['seconds']:.1f}",
        )
    return made
