"""Tiny ImageNet as its folder ``tiny-imagenet-200``: 200 classes of 64x64 photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.errors import InputError
from ..base.files import read_text
from ..base.limits import check_limit
from ..base.progress import track
from .image_files import Bytes, first_line, read_image

__all__ = ["SIDE", "read_tiny_imagenet"]

SIDE = 64


def read_tiny_imagenet(folder: Path, split: str) -> tuple[Bytes, NDArray[np.int64]]:
    """Pixels (N, 3, 64, 64) and labels (N,): places in ``wnids.txt``. The split ``test`` is the folder ``val``.

    The official test images have no labels.

    Raises:
        InputError: a file is missing, cannot be read, or names a class that there is not.
    """
    classes = {_plain(name): place for place, name in enumerate(_lines(folder / "wnids.txt"))}
    listed = _training(folder, classes) if split == "train" else _validation(folder, classes)
    if not listed:
        raise InputError(f"'{folder}' has no images of the split {split}; unpack it again")
    check_limit("array", len(listed) * 3 * SIDE * SIDE, f"'{folder}'")
    pixels = np.empty((len(listed), 3, SIDE, SIDE), np.uint8)
    for place, (path, _) in enumerate(track(listed, "decoding Tiny ImageNet")):
        pixels[place] = read_image(path, SIDE)
    return pixels, np.array([label for _, label in listed], np.int64)


def _training(folder: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for name, label in classes.items()
        for path in sorted((folder / "train" / name / "images").glob("*.JPEG"))
    ]


def _validation(folder: Path, classes: dict[str, int]) -> list[tuple[Path, int]]:
    listing = folder / "val" / "val_annotations.txt"
    found = []
    for line in _lines(listing):
        name, _, rest = line.partition("\t")
        label = classes.get(rest.partition("\t")[0])
        if label is None:
            raise InputError(f"'{listing}' gives '{name}' a class that is not in wnids.txt; unpack it again")
        found.append((folder / "val" / "images" / _plain(name), label))
    return found


def _plain(name: str) -> str:
    if Path(name).name != name:
        raise InputError(f"Tiny ImageNet lists a file outside itself, '{name}'; do not use it")
    return name


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in read_text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{path}': {first_line(error)}; unpack Tiny ImageNet again") from None
