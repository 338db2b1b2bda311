"""Hyper-parameters of a training, as data: presets from ``presets.toml``, and changes to them."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

from ...frontend.base.errors import InputError
from .augmentation import AUGMENTATIONS

__all__ = ["COMPUTE", "Preset", "check_compute", "find_preset", "presets", "rate_at"]

COMPUTE = ("epochs", "equal")
"""What is equal between trainings of a dense network and of a small one: their epochs, or what they compute."""
_MOST_STRETCHED = 2


@dataclass(frozen=True)
class Preset:
    """SGD with momentum and a learning rate that falls in steps.

    Attributes:
        epochs: passes over the training images.
        batch: images a step; what is left over at the end of an epoch is left out.
        rate: learning rate after warm-up.
        milestones: epochs at which it is multiplied by `gamma`.
        gamma: see `milestones`.
        warmup: epochs over which it grows linearly from 0.
        momentum: of SGD.
        weight_decay: of all parameters.
        augment: of `augmentation.AUGMENTATIONS`.
        train_images: how many are used; 0 for all.
        test_images: how many are used; 0 for all.
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

    def changed(self, settings: Mapping[str, Any]) -> Preset:
        """The same with other values, written as text or given as numbers.

        Raises:
            InputError: there is no such setting, or its value is not usable.
        """
        types = {field.name: type(getattr(self, field.name)) for field in dataclasses.fields(self)}
        values: dict[str, Any] = {}
        for name, value in settings.items():
            if name not in types:
                raise InputError(f"a training has no setting '{name}'; it has {', '.join(types)}")
            try:
                values[name] = _converted(types[name], value)
            except (ValueError, TypeError, OverflowError):
                raise InputError(f"'{value}' is no value of {name}; write {_EXAMPLES[types[name]]}") from None
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
        for name in ("rate", "gamma", "warmup", "momentum", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} {value} is not a number from 0 up")
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"there is no augmentation '{self.augment}'; choose one of {', '.join(AUGMENTATIONS)}")


_EXAMPLES = {int: "a whole number", float: "a number", tuple: "epochs with commas, such as 80,120", str: "a name"}


@cache
def presets() -> Mapping[str, Preset]:
    """All presets by name."""
    text = resources.files(__package__).joinpath("presets.toml").read_text(encoding="utf-8")
    found = {}
    for name, values in tomllib.loads(text).items():
        found[name] = Preset(**values | {"milestones": tuple(values.get("milestones", ()))})
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
    epoch = step / steps
    rate = preset.rate * preset.gamma ** sum(epoch >= milestone for milestone in preset.milestones)
    return rate * min(1.0, (step + 1) / (preset.warmup * steps)) if preset.warmup else rate


def _converted(kind: type, value: Any) -> Any:
    if kind is tuple:
        parts = str(value).split(",") if isinstance(value, str | int | float) else value
        return tuple(float(part) for part in parts if str(part).strip())
    if kind is int and float(value) != int(float(value)):
        raise ValueError(value)
    return kind(float(value)) if kind is int else kind(value)
