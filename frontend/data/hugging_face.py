"""Images by class in a data set of Hugging Face, of its hub or saved on this machine; needs the package datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..base.errors import InputError
from ..base.extras import install_command
from ..base.limits import check_limit
from ..base.progress import track
from .datasets import Images
from .facts import Colours
from .folders import check_share, colours_of, images_of
from .image_files import Bytes, first_line, fitted

__all__ = ["HubImages", "open_hub_images"]

_TESTS = ("test", "validation", "val")
_SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` leaves."""
_SEED = 0


@dataclass(frozen=True, eq=False)
class HubImages:
    """A data set with a column of images and one of labels."""

    name: str
    classes: tuple[str, ...]
    splits: Mapping[Literal["train", "test"], Any] = field(repr=False)
    image: str
    """The name of the column."""
    label: str
    """The same."""
    test_share: float = 0.0
    """Held back for tests; 0 where the data set has tests of its own."""

    def images(
        self, split: Literal["train", "test"], height: int, width: int, colours: Colours | None = None
    ) -> Images:
        """As `folders.ImageFolder.images`. Raises InputError if an image cannot be decoded, or has no label."""
        pixels = self._pixels(split, height, width)
        labels = np.array(self.splits[split][self.label], np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.classes):
            raise InputError(f"'{self.name}' has images without a label, {int(labels.min())}; leave them out of it")
        if colours is None:
            colours = colours_of(pixels if split == "train" else self._pixels("train", height, width))
        return images_of(self.name, pixels, labels, colours)

    def _pixels(self, split: Literal["train", "test"], height: int, width: int) -> Bytes:
        rows = self.splits[split].select_columns([self.image])
        check_limit("array", len(rows) * 3 * height * width, f"'{self.name}'")
        pixels = np.empty((len(rows), 3, height, width), np.uint8)
        for place in track(range(len(rows)), f"decoding {self.name}"):
            try:
                pixels[place] = fitted(rows[place][self.image], height, width)
            except Exception as error:  # Whatever the library's decoders meet in damaged files.
                raise InputError(f"image {place} of '{self.name}' cannot be decoded: {first_line(error)}") from None
        return pixels


def open_hub_images(name: str, test_share: float | None = None) -> HubImages:
    """The data set called `name` on the hub, or saved in the folder of that name (``save_to_disk``, or files it reads).

    Args:
        name: of the data set, or a folder.
        test_share: of the images to hold back for tests, where the data set has none.

    Raises:
        InputError: the package is not installed, there is no such data set, or it is not one of images with labels.
    """
    found = _loaded(name)
    training, test = _splits(name, found, test_share)
    features = training.features
    image = _only(name, features, "Image", "images")
    label = _only(name, features, "ClassLabel", "labels that have names (ClassLabel)")
    classes = tuple(str(value) for value in features[label].names)
    if len(classes) < 2:
        raise InputError(f"'{name}' has one class, '{classes[0]}'; a classifier needs two or more")
    share = 0.0 if test_share is None else test_share
    return HubImages(name, classes, {"train": training, "test": test}, image, label, share)


def _loaded(name: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"data sets of Hugging Face need one more package; run: {install_command('datasets')}"
        ) from None
    saved = Path(name).is_dir() and any(Path(name, file).is_file() for file in _SAVED)
    try:
        return datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:
        raise InputError(f"cannot load '{name}' with the package datasets: {first_line(error)}") from None


def _splits(name: str, found: Any, test_share: float | None) -> tuple[Any, Any]:
    """For training and for tests."""
    splits = found if isinstance(found, Mapping) else {"train": found}
    if "train" not in splits:
        raise InputError(f"'{name}' has no split 'train'; there are {', '.join(splits)}")
    test = next((splits[split] for split in _TESTS if split in splits), None)
    if test is not None and test_share is not None:
        raise InputError(f"'{name}' has images for tests; leave out --test-share")
    if test is None:
        if test_share is None:
            raise InputError(f"'{name}' has no split 'test' or 'validation'; say --test-share 0.2 to hold a fifth back")
        check_share(test_share)
        parted = splits["train"].train_test_split(test_share, seed=_SEED)
        return parted["train"], parted["test"]
    return splits["train"], test


def _only(name: str, features: Mapping[str, Any], kind: str, what: str) -> str:
    """The one column of that kind."""
    columns: Sequence[str] = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if len(columns) != 1:
        there = f"{len(columns)} columns of {what}: {', '.join(columns)}" if columns else f"no column of {what}"
        raise InputError(f"'{name}' has {there}; it has to have one")
    return columns[0]
