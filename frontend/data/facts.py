"""What a network was trained on, as far as whoever runs it has to know; the model's file keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..base.json_text import json_array, json_number, json_object, json_text

__all__ = ["Colours", "DataFacts", "facts_of", "keep_facts"]

_PLACE = "data_facts"
"""In the ``meta`` of a captured module, which everything that is made of it gets, too."""

_MOST_CLASSES = 1 << 20


@dataclass(frozen=True)
class Colours:
    """What is subtracted from the three colours of an image, and what they are divided by, as shares of 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class DataFacts:
    """Of images by class.

    Attributes:
        classes: names of the network's outputs, in order.
        colours: what images are normalised with; None where whoever made the images did that, or where the model takes bytes
            (uint8) as they are.
        test_share: of the images of each class that were held back for tests; 0 where they lay apart.
    """

    classes: tuple[str, ...]
    colours: Colours | None
    test_share: float = 0.0

    def to_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "classes": list(self.classes),
            "mean": None if self.colours is None else list(self.colours.mean),
            "std": None if self.colours is None else list(self.colours.std),
            "test_share": self.test_share,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> DataFacts:
        """From what `to_plain` gave. Raises ValueError for anything else."""
        found = json_object(values, ("classes", "mean", "std", "test_share"))
        classes = tuple(json_text(name, "a class") for name in json_array(found["classes"]))
        if not 2 <= len(classes) <= _MOST_CLASSES or len(set(classes)) < len(classes):
            raise ValueError("classes are two or more, of different names")
        if not all(name and name.isprintable() for name in classes):
            raise ValueError("a class without a name that can be printed")
        share = float(json_number(found["test_share"], "test_share"))
        if share >= 1:
            raise ValueError("a share that is none")
        return cls(classes, _colours(found["mean"], found["std"]), share)


def _colours(mean: object, std: object) -> Colours | None:
    if mean is None and std is None:
        return None
    colours = Colours(_three(mean, "mean"), _three(std, "std"))
    if not min(colours.std):
        raise ValueError("a deviation that is not above 0")
    return colours


def _three(values: object, what: str) -> tuple[float, float, float]:
    red, green, blue = (float(json_number(value, what)) for value in json_array(values))
    return red, green, blue


def facts_of(module: Any) -> DataFacts | None:
    """What a captured module says of the data it was trained on, None if nothing does."""
    found = getattr(module, "meta", {}).get(_PLACE)
    return found if isinstance(found, DataFacts) else None


def keep_facts(module: Any, facts: DataFacts | None) -> None:
    """Has a captured module, and whatever is made of it, say this of the data it was trained on; None: nothing."""
    if facts is None:
        module.meta.pop(_PLACE, None)
    else:
        module.meta[_PLACE] = facts
