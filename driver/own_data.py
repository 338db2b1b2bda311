"""What ``--dataset`` and ``--data`` name: a data set, a folder of images, a person's function, one of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch

from ..frontend.base.errors import InputError
from ..frontend.base.progress import stage
from ..frontend.data.datasets import Images, find_dataset, holds_cifar10
from ..frontend.data.facts import Colours, DataFacts
from ..frontend.data.folders import ImageFolder, open_folder, some_names
from ..frontend.data.hugging_face import HubImages, open_hub_images
from .example_inputs import shaped
from .models import Fit, LoadedModel, called, named_object
from .recording import class_count, fits
from .training.sources import Data
from .training.tasks import CLASSIFICATION, Measure, Task, task_of

__all__ = [
    "HUB",
    "ChosenData",
    "Taker",
    "Wanted",
    "is_function",
    "is_own",
    "open_data",
    "parse_channels",
    "parse_colours",
]

Split = Literal["train", "test"]

HUB = "hf:"
"""Before the name of a data set of Hugging Face."""
_STANDARD = "cifar10"


@dataclass(frozen=True)
class Wanted:
    """What a person says of the data.

    Attributes:
        dataset: the name of a data set.
        data: where it lies; or without a name, a folder of images by class, ``file.py:name``, or ``hf:NAME``.
        test_share: of the images of each class to hold back for tests.
        colours: what images are normalised with; None: as the model's file says, or else as the images are.
        trained: whether a model is evaluated, so that these must be those that it was trained with.
    """

    dataset: str | None = None
    data: str | None = None
    test_share: float | None = None
    colours: Colours | None = None
    trained: bool = False


@dataclass(frozen=True)
class Taker:
    """What is to take the data: a model or a bundle."""

    name: str
    shapes: tuple[tuple[int, ...] | None, ...]
    """Of its inputs, as they are given by position; None for one that is no tensor."""
    scores: int | None
    """How many classes it tells apart; None if it gives something else."""
    facts: DataFacts | None = None
    """What it was trained on."""
    on_bytes: bool = False
    """Whether an input is bytes."""
    on_codes: bool = False
    """Whether an input is codes of numbers."""

    @classmethod
    def of(cls, model: LoadedModel) -> Taker:
        shapes = [tuple(value.shape) if isinstance(value, torch.Tensor) else None for value in model.example_inputs]
        on_bytes = any(isinstance(value, torch.Tensor) and value.dtype == torch.uint8 for value in model.example_inputs)
        return cls(model.name, tuple(shapes), _scores(model), model.data, on_bytes)

    def check_floats(self) -> None:
        """Raises InputError if it cannot take floats, such as images that were normalised."""
        if self.on_bytes:
            raise InputError(
                f"'{self.name}' takes bytes, and these are images that were normalised; give the model as it was before"
                " --image-bytes, or write a function that gives bytes, --data file.py:name"
            )
        if self.on_codes:
            raise InputError(
                f"'{self.name}' takes codes, and these are images that were normalised; give what was compiled without"
                " --codes, or write a function that gives codes, --data file.py:name"
            )


class ChosenData(Protocol):
    """Data that were found and not read yet."""

    @property
    def own(self) -> bool:
        """Whether they are a person's own."""

    @property
    def measure(self) -> Measure:
        """By which loss and metric."""

    def fit(self, inputs: Sequence[str]) -> str | Fit | None:
        """What a network by name is made for. `inputs`: shapes that the person gave."""

    def load(self, split: Split, taker: Taker) -> Data:
        """What is for training, or for tests. Raises InputError if `taker` is not for it, or it cannot be read."""

    def facts(self, training: Data) -> DataFacts | None:
        """What a model's file is to say of it."""


def is_own(dataset: str | None, data: str | None) -> bool:
    """Whether these name data of a person's own, rather than a data set by name."""
    return dataset is None and data is not None and not holds_cifar10(Path(data))


def is_function(data: str | None) -> bool:
    """Whether that names a function."""
    return data is not None and not data.startswith(HUB) and ":" in data and not Path(data).exists()


def open_data(wanted: Wanted) -> ChosenData:
    """What a person named.

    Raises:
        InputError: there is no such data, or what was said of it makes no sense.
    """
    data = wanted.data
    if data is None or not is_own(wanted.dataset, data):
        if wanted.test_share is not None or wanted.colours is not None:
            raise InputError(
                "--test-share, --mean and --std are for images of your own; leave them out for a data set by name"
            )
        return _ByName(wanted.dataset or _STANDARD, None if data is None else Path(data))
    if is_function(data):
        task = task_of(called(data, named_object(data, "a function that gives (training, test)")), data)
        return _Function(data, task)
    if data.startswith(HUB):
        return _Pictures(open_hub_images(data.removeprefix(HUB), wanted.test_share), wanted.colours, wanted.trained)
    return _Pictures(open_folder(Path(data), wanted.test_share), wanted.colours, wanted.trained)


def parse_colours(mean: str | None, std: str | None) -> Colours | None:
    """Two texts such as ``0.485,0.456,0.406``; None for none. Raises InputError if one is missing, or no three numbers."""
    found = parse_channels(mean, std, "three numbers")
    if found is None:
        return None
    (red, green, blue), (of_red, of_green, of_blue) = found
    return Colours((red, green, blue), (of_red, of_green, of_blue))


def parse_channels(
    mean: str | None, std: str | None, wanted: Literal["numbers", "three numbers"] = "numbers"
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """`parse_colours` for as many channels as somebody likes, such as the one of grey images."""
    if mean is None and std is None:
        return None
    if mean is None or std is None:
        raise InputError("--mean and --std go together; give both, or neither")
    found = []
    for option, text in (("--mean", mean), ("--std", std)):
        try:
            numbers = tuple(map(float, text.split(",")))
        except ValueError:
            numbers = ()
        if not numbers or (wanted == "three numbers" and len(numbers) != 3):
            raise InputError(f"{option} {text} is not {wanted}; write such as 0.485,0.456,0.406")
        if not fits(option.removeprefix("--"), numbers):
            raise InputError(f"{option} {text} is out of range; give shares of 255, deviations above 0")
        found.append(numbers)
    return found[0], found[1]


@dataclass(frozen=True)
class _ByName:
    """One of `frontend.data.datasets.DATASETS`."""

    dataset: str
    folder: Path | None
    own: bool = False
    measure: Measure = CLASSIFICATION

    def __post_init__(self) -> None:
        find_dataset(self.dataset)

    def fit(self, inputs: Sequence[str]) -> str | Fit | None:
        return self.dataset

    def load(self, split: Split, taker: Taker) -> Data:
        taker.check_floats()
        with stage(f"reading {self.dataset}"):
            return find_dataset(self.dataset).load(self.folder, split)

    def facts(self, training: Data) -> DataFacts | None:
        return None


@dataclass(frozen=True)
class _Pictures:
    """Images by class."""

    images: ImageFolder | HubImages
    colours: Colours | None
    trained: bool
    own: bool = True
    measure: Measure = CLASSIFICATION

    def fit(self, inputs: Sequence[str]) -> str | Fit | None:
        return Fit(len(self.images.classes), _side(inputs))

    def load(self, split: Split, taker: Taker) -> Data:
        taker.check_floats()
        height, width = _image_size(taker)
        self._check_classes(taker)
        colours = self.colours or (None if taker.facts is None else taker.facts.colours)
        if colours is None and (self.trained or taker.facts is not None):
            raise InputError(
                f"'{taker.name}' does not say what the images that it was trained on were normalised with; give --mean and"
                " --std"
            )
        with stage("reading images"):
            return self.images.images(split, height, width, colours)

    def facts(self, training: Data) -> DataFacts | None:
        assert isinstance(training, Images)
        return DataFacts(self.images.classes, Colours(training.mean, training.std), self.images.test_share)

    def _check_classes(self, taker: Taker) -> None:
        classes = self.images.classes
        if taker.facts is not None and taker.facts.classes != classes:
            raise InputError(
                f"'{taker.name}' was trained on {some_names(taker.facts.classes)}, and these are images of"
                f" {some_names(classes)}; the folders' names have to be the classes'"
            )
        if taker.scores is not None and taker.scores != len(classes):
            raise InputError(
                f"'{taker.name}' gives {taker.scores} classes, and there are images of {len(classes)}: {some_names(classes)};"
                f" give a model that ends in {len(classes)}"
            )


@dataclass(frozen=True, eq=False)
class _Function:
    """A person's function."""

    name: str
    task: Task = field(repr=False)
    own: bool = True

    @property
    def measure(self) -> Measure:
        return self.task.measure

    def fit(self, inputs: Sequence[str]) -> str | Fit | None:
        return Fit(len(self.task.classes), _side(inputs)) if self.task.classes else None

    def load(self, split: Split, taker: Taker) -> Data:
        return self.task.training if split == "train" else self.task.test

    def facts(self, training: Data) -> DataFacts | None:
        """Inputs are normalised by the function, in a way that only it knows."""
        if not self.task.classes:
            return None
        return DataFacts(self.task.classes, None)


def _side(inputs: Sequence[str]) -> int | None:
    """Of square images, from their shapes."""
    shapes = [tensor.shape for _, tensor in shaped(inputs, 0)]
    return int(shapes[0][-1]) if len(shapes) == 1 and len(shapes[0]) == 4 else None


def _image_size(taker: Taker) -> tuple[int, int]:
    """Height and width. Raises InputError if it takes no images in three colours."""
    first = taker.shapes[0] if len(taker.shapes) == 1 else None
    if first is None or len(first) != 4 or first[1] != 3:
        shapes = ["x".join(map(str, shape)) if shape else "a plain value" for shape in taker.shapes]
        raise InputError(
            f"'{taker.name}' takes {', '.join(shapes)}, not images of three colours (N, 3, H, W); write a function that gives"
            " what it takes, --data file.py:name"
        )
    return first[2], first[3]


def _scores(model: LoadedModel) -> int | None:
    """How many classes a model tells apart; None if it gives something else."""
    return class_count(model.module)
