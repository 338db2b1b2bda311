"""What the verbs that train are told alike, and what they make of it before they begin."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ...frontend.base.errors import InputError
from ...frontend.data.facts import Colours, DataFacts
from ...frontend.graph_module import CapturedModule
from ...frontend.quantized_operators import check_not_rounded
from ..models import Fit, LoadedModel, load_model
from ..outputs import check_folder, suffixed
from ..own_data import ChosenData, Taker, Wanted, is_own, open_data
from ..training.loop import Hardware
from ..training.presets import OF_A_TEACHER, Preset, find_preset
from ..training.sources import Data
from ..training.tasks import Measure
from .settings import method_settings

__all__ = ["Subject", "TrainingRequest", "machine_asked", "prepared"]

_PRESETS = {False: "laptop", True: "fine-tune"}
"""By whether data are a person's own."""


def machine_asked(device: str, bfloat16: bool, float16: bool, threads: int | None) -> Hardware:
    """Raises InputError where both narrow types are asked for."""
    if bfloat16 and float16:
        raise InputError("--bfloat16 and --float16 were given; choose one")
    return Hardware(device, "bfloat16" if bfloat16 else "float16" if float16 else "float32", threads)


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """See the help of ``reconvene train``."""

    model: str
    dataset: str | None = None
    data: str | None = None
    test_share: float | None = None
    colours: Colours | None = None
    workers: int = 0
    preset: str | None = None
    settings: tuple[str, ...] = ()
    """``NAME=VALUE``, of the preset."""
    teacher: str | None = None
    """A model."""
    machine: Hardware = field(default_factory=Hardware)
    width: float = 1.0
    checkpoint_every: int = 100
    """Steps."""
    weights: str | None = None
    inputs: tuple[str, ...] = ()
    output: Path | None = None
    """A folder."""
    seed: int = 0

    @property
    def preset_name(self) -> str:
        return self.preset or _PRESETS[is_own(self.dataset, self.data)]

    def chosen(self) -> Preset:
        """The preset with its changes. Raises InputError if one makes no sense."""
        changes = method_settings(None, self.settings)
        if self.teacher is None:
            for name in changes.keys() & set(OF_A_TEACHER):
                raise InputError(f"--set {name} has no meaning without --teacher; leave it out")
        return find_preset(self.preset_name).changed(changes)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is trained, how, on what, and where to."""

    loaded: LoadedModel
    module: CapturedModule
    """Of `loaded`."""
    preset: Preset
    teacher: CapturedModule | None
    training: Data
    test: Data
    measure: Measure
    facts: DataFacts | None
    """What the model's file is to say of the data."""
    folder: Path

    @property
    def data_name(self) -> str:
        return str(getattr(self.training, "name", type(self.training).__name__))


def prepared(request: TrainingRequest, suffix: str) -> Subject:
    """Everything read, in an order that says soon what is wrong. `suffix`: of the folder beside the model.

    Raises:
        InputError: something is missing, or does not fit.
    """
    preset = request.chosen()
    request.machine.checked()
    if request.output is not None:
        check_folder(request.output)
    loaded, data = _model_and_data(request)
    folder = request.output or suffixed(loaded.beside, suffix)
    check_folder(folder)
    assert isinstance(loaded.module, CapturedModule)
    check_not_rounded(loaded.module)
    teacher = _teacher(request, data)
    taker = Taker.of(loaded)
    training, test = data.load("train", taker), data.load("test", taker)
    facts = data.facts(training) if data.own else loaded.data
    return Subject(loaded, loaded.module, preset, teacher, training, test, data.measure, facts, folder)


def _model_and_data(request: TrainingRequest) -> tuple[LoadedModel, ChosenData]:
    """A file knows what was held back for its tests; a network by name has to know for how many classes it is."""
    wanted = Wanted(request.dataset, request.data, request.test_share, request.colours)
    if not Path(request.model).is_file():
        data = open_data(wanted)
        return _loaded(request, data.fit(request.inputs)), data
    loaded = _loaded(request, None)
    if is_own(wanted.dataset, wanted.data) and wanted.test_share is None and loaded.data is not None:
        wanted = replace(wanted, test_share=loaded.data.test_share or None)
    return loaded, open_data(wanted)


def _loaded(request: TrainingRequest, fit: str | Fit | None) -> LoadedModel:
    return load_model(
        request.model,
        request.inputs,
        request.seed,
        ("batch",),
        dataset=fit,
        width=request.width,
        weights=request.weights,
    )


def _teacher(request: TrainingRequest, data: ChosenData) -> CapturedModule | None:
    if request.teacher is None:
        return None
    found = load_model(
        request.teacher, request.inputs, request.seed, ("batch",), dataset=data.fit(request.inputs)
    ).module
    assert isinstance(found, CapturedModule)
    return found
