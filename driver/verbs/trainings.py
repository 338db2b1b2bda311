"""What the verbs that train are told alike, and what they make of it before they begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.base.progress import stage
from ...frontend.data.datasets import Images, find_dataset
from ...frontend.graph_module import CapturedModule
from ..models import LoadedModel, load_model
from ..outputs import check_folder, suffixed
from ..training.loop import Hardware
from ..training.presets import OF_A_TEACHER, Preset, find_preset
from .settings import method_settings

__all__ = ["Subject", "TrainingRequest", "prepared"]


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """See the help of ``reconvene train``."""

    model: str
    dataset: str = "cifar10"
    data: Path | None = None
    preset: str = "laptop"
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``, of the preset."""
    teacher: str | None = None
    """A model."""
    machine: Hardware = field(default_factory=Hardware)
    width: float = 1.0
    checkpoint_every: int = 100
    """Steps."""
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    """A folder."""
    seed: int = 0

    def chosen(self) -> Preset:
        """The preset with its changes. Raises InputError if one makes no sense."""
        changes = method_settings(None, self.settings)
        if self.teacher is None:
            for name in changes.keys() & set(OF_A_TEACHER):
                raise InputError(f"--set {name} has no meaning without --teacher; leave it out")
        return find_preset(self.preset).changed(changes)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is trained, how, on what, and where to."""

    loaded: LoadedModel
    module: CapturedModule
    """Of `loaded`."""
    preset: Preset
    teacher: CapturedModule | None
    training: Images
    test: Images
    folder: Path


def prepared(request: TrainingRequest, suffix: str) -> Subject:
    """Everything read, in an order that says soon what is wrong. `suffix`: of the folder beside the model.

    Raises:
        InputError: something is missing, or does not fit.
    """
    preset = request.chosen()
    request.machine.checked()
    dataset = find_dataset(request.dataset)
    if request.output is not None:
        check_folder(request.output)
    loaded = load_model(
        request.model, request.inputs, request.seed, ("batch",), dataset=request.dataset, width=request.width
    )
    folder = request.output or suffixed(loaded.beside, suffix)
    check_folder(folder)
    assert isinstance(loaded.module, CapturedModule)
    teacher = _teacher(request)
    with stage(f"reading {request.dataset}"):
        training, test = (dataset.load(request.data, split) for split in ("train", "test"))
    return Subject(loaded, loaded.module, preset, teacher, training, test, folder)


def _teacher(request: TrainingRequest) -> CapturedModule | None:
    if request.teacher is None:
        return None
    found = load_model(request.teacher, request.inputs, request.seed, ("batch",), dataset=request.dataset).module
    assert isinstance(found, CapturedModule)
    return found
