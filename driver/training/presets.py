"""Hyper-parameters of a training, as data: presets from ``presets.toml``, and changes to them."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from ...frontend.base.errors import InputError
from ...frontend.base.option_values import of_kind
from .augmentation import AUGMENTATIONS
from .distillation import MATCHINGS
from .optimizers import OPTIMIZERS, Optimization
from .schedules import SCHEDULES, Course

__all__ = [
    "COMPUTE", "OF_A_TEACHER", "Preset", "check_compute", "find_preset", "presets", "rate_at", "recorded", "tables",
]  # fmt: skip

COMPUTE = ("epochs", "equal")
"""What is equal between trainings of a dense network and of a small one: their epochs, or what they compute."""
_MOST_STRETCHED = 2


@dataclass(frozen=True)
class Preset:
    """What a training is run with; unless said otherwise SGD with momentum and a learning rate that falls in steps.

    Attributes:
        epochs: passes over the training images.
        batch: images a step; what is left over at the end of an epoch is left out.
        rate: largest learning rate, which it has after warm-up.
        milestones: epochs at which it is multiplied by `gamma`; of the schedule ``steps``.
        gamma: see `milestones`.
        warmup: epochs over which it grows, linearly from 0; with ``one-cycle``, the length of its first phase.
        momentum: of SGD; of AdamW the first of its betas.
        weight_decay: of all parameters.
        augment: of `augmentation.AUGMENTATIONS`.
        train_images: how many are used; 0 for all.
        test_images: how many are used; 0 for all.
        optimizer: of `optimizers.OPTIMIZERS`.
        beta2: the second of AdamW's betas.
        schedule: of `schedules.SCHEDULES`.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al., 2016, arXiv:1512.00567).
        clip: largest norm of all gradients together, 0 for any.
        ema: decay of the average of weights and statistics that is tested and given instead of the last ones, 0 for none.
        temperature: of distillation, T.
        teacher_share: of the loss that is the teacher's, a; the rest is the labels'.
        matched: patterns (``fnmatch``) of layers whose outputs are to be like those of the teacher's layer of the same name.
        matching: in which way they are, of `distillation.MATCHINGS`.
        matching_weight: of that in the loss.
    """

    epochs: int
    batch: int
    rate: float
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    augment: str = "crop-flip"
    train_images: int = 0
    test_images: int = 0
    optimizer: str = "sgd"
    beta2: float = 0.999
    schedule: str = "steps"
    label_smoothing: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    temperature: float = 4.0
    teacher_share: float = 0.9
    matched: tuple[str, ...] = ()
    matching: str = "features"
    matching_weight: float = 1.0

    def changed(self, settings: Mapping[str, Any]) -> Preset:
        """The same with other values, written as text or given as numbers.

        Raises:
            InputError: there is no such setting, or its value is not usable.
        """
        kinds = {field.name: str(field.type) for field in dataclasses.fields(self)}
        for name in settings:
            if name not in kinds:
                raise InputError(f"a training has no setting '{name}'; it has {', '.join(kinds)}")
        values = {name: of_kind(name, kinds[name], value) for name, value in settings.items()}
        result = dataclasses.replace(self, **values)
        result.check()
        return result

    def stretched(self, dense_macs: int, macs: int) -> Preset:
        """The schedule for equal compute: whole epochs, as many more as they are cheaper, but at most twice as many.

        That is scratch-B of Liu et al. (2019, arXiv 1810.05270); this schedule unstretched is their scratch-E. Milestones and
        warm-up keep their places in it. No more is computed than the dense network's training would take.

        Args:
            dense_macs: multiply-accumulates of the dense network.
            macs: of the one to train, on as many images.

        Raises:
            InputError: one of them is not above 0.
        """
        if min(dense_macs, macs) < 1:
            raise InputError(f"{dense_macs} and {macs} multiply-accumulates cannot be compared; both are 1 or more")
        epochs = max(self.epochs, self.epochs * min(dense_macs, _MOST_STRETCHED * macs) // macs)
        share = epochs / self.epochs
        milestones = tuple(milestone * share for milestone in self.milestones)
        return dataclasses.replace(self, epochs=epochs, milestones=milestones, warmup=self.warmup * share)

    def check(self) -> None:
        """Raises InputError for values no training can be run with."""
        if self.epochs < 1 or self.batch < 1:
            raise InputError(f"{self.epochs} epochs of batches of {self.batch} train nothing; both are 1 or more")
        for name in ("train_images", "test_images"):
            if (value := getattr(self, name)) < 0:
                raise InputError(f"{name} {value} is no number of images; give 1 or more, or 0 for all of them")
        for name, (fits, wanted) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and fits(value)):
                raise InputError(f"{name} {value} is not {wanted}")
        if self.optimizer == "adamw" and self.momentum >= 1:
            raise InputError(f"momentum {self.momentum} is not {_DECAY[1]}, as the first beta of AdamW is")
        for name, (what, choices) in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(f"there is no {what} '{getattr(self, name)}'; choose one of {', '.join(choices)}")

    @property
    def optimization(self) -> Optimization:
        """What its optimizer is told."""
        return Optimization(self.rate, self.momentum, self.weight_decay, self.beta2)


_UP = (lambda value: value >= 0, "a number from 0 up")
_SHARE = (lambda value: 0 <= value <= 1, "a share from 0 to 1")
_DECAY = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(("rate", "gamma", "warmup", "momentum", "weight_decay", "clip", "matching_weight"), _UP),
    **dict.fromkeys(("label_smoothing", "teacher_share"), _SHARE),
    **dict.fromkeys(("beta2", "ema"), _DECAY),
    "temperature": (lambda value: value > 0, "a number above 0"),
}
"""By setting: which values it may have, and that in words."""

_CHOICES = {
    "augment": ("augmentation", AUGMENTATIONS),
    "optimizer": ("optimizer", OPTIMIZERS),
    "schedule": ("schedule", SCHEDULES),
    "matching": ("way of matching layers", MATCHINGS),
}


_FIRST = ("epochs", "batch", "rate", "milestones", "gamma", "warmup", "momentum", "weight_decay", "augment",
          "train_images", "test_images")  # fmt: skip
"""The fields that presets have had from the beginning."""

_OF_OTHERS = ("method", "shrinking")
"""What ``presets.toml`` says beside the fields: which method a preset brings, and how a network is made smaller with it."""

OF_A_TEACHER = ("temperature", "teacher_share", "matched", "matching", "matching_weight")
"""The fields that say nothing without a teacher."""


def recorded(preset: Preset, teacher: bool = False) -> dict[str, Any]:
    """What of a preset says which training it is: fields that came later only where they say something.

    So trainings that were begun before there was a field go on.

    Args:
        teacher: whether there is one.
    """
    standard = {field.name: field.default for field in dataclasses.fields(preset)}
    return {
        name: value
        for name, value in asdict(preset).items()
        if name in _FIRST or (value != standard[name] and (teacher or name not in OF_A_TEACHER))
    }


@cache
def tables() -> Mapping[str, Mapping[str, Any]]:
    """What ``presets.toml`` says of each preset, with what it says of the one that it is ``like``."""
    text = resources.files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    found: dict[str, dict[str, Any]] = {}
    for name, values in tomllib.loads(text).items():
        found[name] = {**found.get(values.pop("like", ""), {}), **values}
    return MappingProxyType(found)


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name."""
    found = {}
    for name, values in tables().items():
        settings = {key: value for key, value in values.items() if key not in _OF_OTHERS}
        lists = {key: tuple(value) for key, value in settings.items() if isinstance(value, list)}
        found[name] = Preset(**settings | lists)
        found[name].check()
    return MappingProxyType(found)


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in presets():
        raise InputError(f"no training preset is called '{name}'; there are {', '.join(presets())}")
    return presets()[name]


def check_compute(compute: str) -> None:
    """Raises InputError unless it is of `COMPUTE`."""
    if compute not in COMPUTE:
        raise InputError(f"there is no compute '{compute}'; choose {' or '.join(COMPUTE)}")


def rate_at(preset: Preset, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0 over the whole training, with `steps` an epoch.

    It depends on nothing else, so that a training taken up again goes on as if it had not stopped.
    """
    course = Course(preset.rate, preset.epochs, steps, preset.warmup, preset.milestones, preset.gamma)
    return SCHEDULES[preset.schedule](course, step)
