"""A person's own images: a folder of images by class, with a part for tests or without."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..base.cache_folder import cache_folder
from ..base.errors import InputError
from ..base.limits import check_limit
from ..base.progress import track
from .datasets import Images, read_cache, write_cache
from .facts import Colours
from .image_files import Bytes, read_fitted

__all__ = ["ImageFolder", "check_share", "colours_of", "held_back", "images_of", "open_folder", "some_names"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
_TRAINING = "train"
_TESTS = ("test", "val", "valid", "validation")
_SEED = 0


@dataclass(frozen=True)
class ImageFolder:
    """The files of a folder by class, none of them read yet."""

    path: Path
    classes: tuple[str, ...]
    """Names of the folders that images of a class lie in, sorted."""
    training: tuple[tuple[Path, int], ...] = field(repr=False)
    """Files with the place of their class in `classes`."""
    test: tuple[tuple[Path, int], ...] = field(repr=False)
    test_share: float = 0.0
    """Of each class, held back for tests; 0 where tests have a folder of their own."""

    def images(
        self, split: Literal["train", "test"], height: int, width: int, colours: Colours | None = None
    ) -> Images:
        """The images of a split, of one size; see `image_files.fitted`. Decoded once: later calls read the cache.

        Args:
            split: which.
            height: of the images, in pixels.
            width: of the images, in pixels.
            colours: what they are normalised with; None: mean and deviation of the images for training.

        Raises:
            InputError: one of them is no image, or they take too much memory.
        """
        listed = self.training if split == "train" else self.test
        pixels, labels = _decoded(self.path, listed, height, width)
        if colours is None:
            seen = pixels if split == "train" else _decoded(self.path, self.training, height, width)[0]
            colours = colours_of(seen)
        return images_of(self.path.name, pixels, labels, colours)


def images_of(name: str, pixels: Bytes, labels: NDArray[np.int64], colours: Colours) -> Images:
    """Images that are known by what they are."""
    digest = hashlib.sha256(pixels.data)
    digest.update(labels.data)
    return Images(name, pixels, labels, colours.mean, colours.std, digest.hexdigest())


def open_folder(path: Path, test_share: float | None = None) -> ImageFolder:
    """The images in a folder: by class in ``train`` and in ``test`` (or ``val``), or by class in the folder itself.

    Args:
        path: of the folder.
        test_share: of the images of each class to hold back for tests, where no folder has them.

    Raises:
        InputError: there is no such folder, there are fewer than two classes, a class has no images, or it is not said
            which images are for tests.
    """
    if not path.is_dir():
        raise InputError(f"there is no folder '{path}'; give one that holds a folder of images for each class")
    apart = path / _TRAINING
    training = _listed(apart if apart.is_dir() else path)
    tests = next((path / name for name in _TESTS if (path / name).is_dir()), None) if apart.is_dir() else None
    if tests is not None:
        if test_share is not None:
            raise InputError(f"'{tests}' has the images for tests; leave out --test-share, or that folder")
        classes = tuple(training)
        return ImageFolder(path, classes, _flat(training, classes), _flat(_listed(tests, classes), classes))
    if test_share is None:
        raise InputError(
            f"'{path}' has no folder '{_TRAINING}' beside one called '{_TESTS[0]}' or '{_TESTS[1]}'; say"
            " --test-share 0.2 to hold a fifth of each class back for tests"
        )
    return held_back(path, training, test_share)


def check_share(share: float) -> None:
    """Raises InputError unless that is a share that can be held back."""
    if not 0 < share < 1:
        raise InputError(f"a share of {share} is not between 0 and 1; 0.2 holds a fifth of each class back for tests")


def held_back(path: Path, files: dict[str, list[Path]], share: float) -> ImageFolder:
    """Of every class the share, rounded, and one at least, for tests: the same ones every time.

    Raises:
        InputError: it is no share, or a class has one image only.
    """
    check_share(share)
    training: list[tuple[Path, int]] = []
    test: list[tuple[Path, int]] = []
    for label, (name, paths) in enumerate(files.items()):
        if len(paths) < 2:
            raise InputError(f"the class '{name}' of '{path}' has one image, and none is left to hold back; add some")
        count = min(max(round(share * len(paths)), 1), len(paths) - 1)
        chosen = set(np.random.default_rng((_SEED, label)).permutation(len(paths))[:count].tolist())
        for place, file in enumerate(paths):
            (test if place in chosen else training).append((file, label))
    return ImageFolder(path, tuple(files), tuple(training), tuple(test), share)


def colours_of(pixels: Bytes) -> Colours:
    """Mean and standard deviation of each colour of images (N, 3, H, W), as shares of 255; of one colour, that of one step."""
    counts = np.stack([np.bincount(pixels[:, colour].reshape(-1), minlength=256) for colour in range(3)]).astype(float)
    values, total = np.arange(256) / 255, counts.sum(1)
    mean = counts @ values / total
    std = np.sqrt(np.maximum(counts @ values**2 / total - mean**2, 0)).clip(1 / 255)
    means, stds = ([round(float(value), 6) for value in found] for found in (mean, std))
    return Colours((means[0], means[1], means[2]), (stds[0], stds[1], stds[2]))


def _listed(folder: Path, classes: Sequence[str] | None = None) -> dict[str, list[Path]]:
    """The image files of each class in a folder; with `classes`, of no others."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    odd = next((name for name in names if not name.isprintable()), None)
    if odd is not None:
        raise InputError(f"'{folder}' has a class {odd!r} whose name cannot be printed; rename the folder")
    found = {name: sorted(_files(folder / name)) for name in names}
    if classes is not None:
        unknown = sorted(found.keys() - set(classes))
        if unknown:
            raise InputError(
                f"'{folder}' has a class '{unknown[0]}' that is not trained on; there are {some_names(classes)}"
            )
    elif len(found) < 2:
        there = f"one class, '{names[0]}'" if names else "no folders"
        raise InputError(
            f"'{folder}' has {there}; a classifier needs a folder of images for each of two classes or more"
        )
    for name, paths in found.items():
        if not paths:
            raise InputError(
                f"'{folder / name}' holds no images ({', '.join(_SUFFIXES)}); add some, or remove the folder"
            )
    return found


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names if name.lower().endswith(_SUFFIXES) and name[0] != ".")


def _flat(files: dict[str, list[Path]], classes: Sequence[str]) -> tuple[tuple[Path, int], ...]:
    places = {name: place for place, name in enumerate(classes)}
    return tuple((path, places[name]) for name, paths in files.items() for path in paths)


def _decoded(
    root: Path, listed: Sequence[tuple[Path, int]], height: int, width: int
) -> tuple[Bytes, NDArray[np.int64]]:
    """Pixels (N, 3, height, width) and labels (N,) of the files."""
    check_limit("array", len(listed) * 3 * height * width, f"'{root}'")
    kept = cache_folder() / f"folder-{_key(listed, height, width)}.npz"
    found = read_cache(kept)
    if found is None or found[0].shape != (len(listed), 3, height, width):
        found = _read(root, listed, height, width)
        write_cache(kept, *found)
    return found


def _read(root: Path, listed: Sequence[tuple[Path, int]], height: int, width: int) -> tuple[Bytes, NDArray[np.int64]]:
    """Raises InputError, naming the first and how many there are, if some are no images."""
    pixels, broken = np.empty((len(listed), 3, height, width), np.uint8), list[str]()
    for place, (path, _) in enumerate(track(listed, f"decoding {root.name}")):
        try:
            pixels[place] = read_fitted(path, height, width)
        except InputError as error:
            broken.append(str(error))
    if len(broken) > 1:
        raise InputError(f"{len(broken)} of the {len(listed)} images cannot be read; the first: {broken[0]}")
    if broken:
        raise InputError(broken[0])
    return pixels, np.array([label for _, label in listed], np.int64)


def _key(listed: Sequence[tuple[Path, int]], height: int, width: int) -> str:
    """Another one wherever a file, its class or the size is another."""
    digest = hashlib.sha256(f"{height}x{width}".encode())
    for path, label in listed:
        facts = path.stat()
        digest.update(f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{label}\n".encode())
    return digest.hexdigest()[:16]


def some_names(names: Sequence[str]) -> str:
    """The first ones, for a message."""
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
