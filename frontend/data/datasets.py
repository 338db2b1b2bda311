"""Image data sets found on this machine. Nothing is downloaded; what is missing is named, with where to put it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..base.array_files import load_arrays
from ..base.cache_folder import cache_folder
from ..base.errors import InputError
from ..base.files import replacing
from .cifar_pickle import read_cifar_pickle
from .digits import DIGITS_SIDE, find_digits, read_digits
from .image_files import Bytes, read_cifar_binary, read_cifar_jpeg, read_idx, read_photograph
from .tiny_imagenet import read_tiny_imagenet

__all__ = [
    "DATASETS",
    "DataSet",
    "Images",
    "balanced",
    "cifar10",
    "digits",
    "fashion_mnist",
    "find_dataset",
    "holds_cifar10",
    "imagenet_samples",
    "small_images",
    "tiny_imagenet",
]

Split = Literal["train", "test"]

DATA_VARIABLE = "RECONVENE_DATA"
_BINARY_FOLDER = "cifar-10-batches-bin"
_PICKLE_FOLDER = "cifar-10-batches-py"
_JPEG_FILE = "cifar10-jpeg.npz"
_BINARY_FILES = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
_PICKLE_FILES = {"train": tuple(f"data_batch_{n}" for n in range(1, 6)), "test": ("test_batch",)}
_TINY_FOLDER = "tiny-imagenet-200"
_IDX_PREFIX = {"train": "train", "test": "t10k"}
_DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_SHUFFLE_SEED = 0
_DIGITS_TEST = 500
"""Of the 1,797."""


@dataclass(frozen=True)
class Images:
    """Labelled images in memory."""

    name: str
    pixels: Bytes
    """(N, 3, H, W), RGB, 0..255."""
    labels: NDArray[np.int64]
    """(N,)."""
    mean: tuple[float, float, float]
    """What `batch` subtracts from each colour, as a share of 255."""
    std: tuple[float, float, float]
    """What `batch` divides each colour by, as a share of 255."""
    digest: str = ""
    """Of pixels and labels, for those whose name does not tell which they are."""

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, start: int = 0, count: int | None = None) -> Tensor:
        """Images `start` to `start + count` (default: to the end) as normalized float32 (count, 3, H, W)."""
        stop = None if count is None else start + count
        pixels = torch.from_numpy(np.array(self.pixels[start:stop])).to(torch.float32) / 255.0
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def cifar10(root: str | os.PathLike[str] | None = None, split: Split = "test") -> Images:
    """CIFAR-10: the official files (folder ``cifar-10-batches-bin`` or ``cifar-10-batches-py``), else ``cifar10-jpeg.npz``.

    The Python version is read without unpickling.

    Looks in `root` if given, else in the folder named by the variable RECONVENE_DATA, in ``./data`` and in
    ``../shared/data``. The JPEG form is sorted by class, so it is shuffled, with a fixed seed.

    Raises:
        InputError: there is no such data, or it is damaged.
    """
    checked_split(split)
    folders = data_folders(root)
    for folder in folders:
        for name, files, read in (
            (_BINARY_FOLDER, _BINARY_FILES, read_cifar_binary),
            (_PICKLE_FOLDER, _PICKLE_FILES, read_cifar_pickle),
        ):
            official = folder if folder.name == name else folder / name
            if official.is_dir():
                parts = [read(official / file) for file in files[split]]
                pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
                return cifar_images("CIFAR-10", pixels, labels)
        if (folder / _JPEG_FILE).is_file():
            return cifar_images("CIFAR-10 (as JPEG)", *cached(folder / _JPEG_FILE, split, read_cifar_jpeg))
    raise InputError(
        f"no CIFAR-10 in {listed(folders)}; unpack its binary version (folder '{_BINARY_FOLDER}') or Python version"
        f" ('{_PICKLE_FOLDER}') into ./data, or name its folder with {DATA_VARIABLE}"
    )


def holds_cifar10(folder: Path) -> bool:
    """Whether `cifar10` would find its files in a folder, in one of their forms."""
    names = (_BINARY_FOLDER, _PICKLE_FOLDER)
    return folder.name in names or any((folder / name).is_dir() for name in names) or (folder / _JPEG_FILE).is_file()


def fashion_mnist(root: str | os.PathLike[str] | None = None, split: Split = "test") -> Images:
    """Fashion-MNIST (IDX files), padded to 32x32 and repeated over three colours, so that CIFAR's networks take it.

    Looks where `cifar10` looks, in folders ``fashion-mnist`` there, and where Debian's package
    dataset-fashion-mnist puts it.

    Raises:
        InputError: there is no such data, or it is damaged.
    """
    prefix = _IDX_PREFIX[checked_split(split)]
    found = data_folders(root)
    folders = [*found, *(folder / "fashion-mnist" for folder in found), *([_DEBIAN_FASHION] if root is None else [])]
    for folder in folders:
        for suffix in (".gz", ""):
            pixels_path = folder / f"{prefix}-images-idx3-ubyte{suffix}"
            labels_path = folder / f"{prefix}-labels-idx1-ubyte{suffix}"
            if pixels_path.is_file() and labels_path.is_file():
                return fashion_images(pixels_path, labels_path)
    raise InputError(
        f"no Fashion-MNIST in {listed(folders)}; install Debian's dataset-fashion-mnist, or put its four"
        f" '*-ubyte.gz' files into ./data/fashion-mnist"
    )


def tiny_imagenet(root: str | os.PathLike[str] | None = None, split: Split = "test") -> Images:
    """Tiny ImageNet (folder ``tiny-imagenet-200``, where `cifar10` looks); its labelled ``val`` images are the test split.

    Raises:
        InputError: there is no such data, or it is damaged.
    """
    checked_split(split)
    folders = data_folders(root)
    for folder in folders:
        official = folder if folder.name == _TINY_FOLDER else folder / _TINY_FOLDER
        if official.is_dir():
            pixels, labels = cached(official, split, read_tiny_imagenet)
            return Images("Tiny ImageNet", pixels, labels, mean=(0.4802, 0.4481, 0.3975), std=(0.2770, 0.2691, 0.2821))
    raise InputError(f"no Tiny ImageNet in {listed(folders)}; unpack it as '{_TINY_FOLDER}' into ./data")


def digits(root: str | os.PathLike[str] | None = None, split: Split = "test") -> Images:
    """scikit-learn's handwritten digits at 16x16: 1,297 for training and 500 for tests, drawn with a fixed seed.

    They come without a division of their own. Looks in `root` if given, else in the package scikit-learn.

    Raises:
        InputError: the package is not there, or its file is damaged.
    """
    checked_split(split)
    pixels, labels = shuffled(*read_digits(find_digits(None if root is None else Path(root))))
    chosen = slice(_DIGITS_TEST) if split == "test" else slice(_DIGITS_TEST, None)
    return Images("digits", pixels[chosen], labels[chosen], mean=(0.3052,) * 3, std=(0.3759,) * 3)


@dataclass(frozen=True)
class DataSet:
    """A data set that networks can be fitted to and trained on."""

    classes: int
    side: int
    """Of its images, in pixels, as `load` gives them."""
    load: Callable[[str | os.PathLike[str] | None, Split], Images]


DATASETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "cifar10": DataSet(10, 32, cifar10),
        "digits": DataSet(10, DIGITS_SIDE, digits),
        "fashion-mnist": DataSet(10, 32, fashion_mnist),
        "tiny-imagenet": DataSet(200, 64, tiny_imagenet),
    }
)


def find_dataset(name: str) -> DataSet:
    """The data set called `name`. Raises InputError, naming those there are, where there is none."""
    if name not in DATASETS:
        raise InputError(f"no data set is called '{name}'; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def balanced(images: Images, per_class: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """As many images of every class, drawn at random, normalized, with their labels: what scores are computed on.

    Raises:
        InputError: a class has fewer images.
    """
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(images.labels):
        places = np.flatnonzero(images.labels == label)
        if len(places) < per_class:
            raise InputError(f"class {label} of {images.name} has {len(places)} images, fewer than {per_class}")
        chosen.append(generator.permutation(places)[:per_class])
    order = generator.permutation(np.concatenate(chosen))
    picked = replace(images, pixels=images.pixels[order], labels=images.labels[order])
    return picked.batch(), torch.from_numpy(picked.labels)


def small_images(root: str | os.PathLike[str] | None = None, split: Split = "test") -> Images:
    """CIFAR-10 where it is found, else Fashion-MNIST. Raises InputError that says how to get either."""
    try:
        return cifar10(root, split)
    except InputError as error:
        try:
            return fashion_mnist(root, split)
        except InputError:
            raise InputError(f"{error}; Fashion-MNIST (Debian's dataset-fashion-mnist) would do as well") from None


def imagenet_samples(size: int = 224) -> Images:
    """The 20 ImageNet photographs of the package foolbox as (20, 3, size, size), 0..255, with ImageNet-1k labels.

    Normalized as EfficientNet-Lite was trained: (x - 127) / 128.

    Raises:
        InputError: the package, or its photographs, are not there.
    """
    # Found, not imported: foolbox needs packages that its photographs do not.
    spec = importlib.util.find_spec("foolbox")
    places = list(spec.submodule_search_locations or ()) if spec else []
    paths = sorted(path for place in places for path in Path(place, "data").glob("imagenet_*_*.*"))
    if not paths:
        raise InputError("the 20 ImageNet photographs are missing; get them with: pip install foolbox==3.3.4")
    labels = np.array([label_of(path) for path in paths], dtype=np.int64)
    pixels = np.stack([read_photograph(path, size) for path in paths])
    return Images("ImageNet samples (foolbox)", pixels, labels, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)


def label_of(path: Path) -> int:
    last = path.stem.rsplit("_", 1)[-1]
    if not last.isdigit():
        raise InputError(f"'{path}' does not end in a label: foolbox's photographs are named imagenet_00_LABEL")
    return int(last)


def cifar_images(name: str, pixels: Bytes, labels: NDArray[np.int64]) -> Images:
    return Images(name, pixels, labels, mean=(0.4913, 0.4821, 0.4465), std=(0.2452, 0.2428, 0.2606))


def fashion_images(pixels_path: Path, labels_path: Path) -> Images:
    grey, labels = read_idx(pixels_path), read_idx(labels_path)
    if grey.ndim != 3 or grey.shape[1:] != (28, 28) or labels.shape != grey.shape[:1]:
        raise InputError(
            f"'{pixels_path}' and its labels have the shapes {grey.shape} and {labels.shape}: this is no Fashion-MNIST"
        )
    padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
    pixels = np.repeat(padded[:, None], 3, axis=1)
    return Images("Fashion-MNIST", pixels, labels.astype(np.int64), mean=(0.2190,) * 3, std=(0.3318,) * 3)


def checked_split(split: str) -> str:
    if split not in _BINARY_FILES:
        raise InputError(f"a data set has no split '{split}'; there are train and test")
    return split


def data_folders(root: str | os.PathLike[str] | None) -> list[Path]:
    """Where data may be, in the order of looking."""
    if root is not None:
        return [Path(root)]
    named = os.environ.get(DATA_VARIABLE)
    here = Path.cwd()
    return [*([Path(named)] if named else []), here / "data", here.parent / "shared" / "data"]


def listed(folders: Sequence[Path]) -> str:
    return ", ".join(f"'{folder}'" for folder in folders)


Reader = Callable[[Path, str], tuple[Bytes, NDArray[np.int64]]]


def cached(path: Path, split: Split, read: Reader) -> tuple[Bytes, NDArray[np.int64]]:
    """`read`, shuffled; decoded once: later calls read the arrays from the user's cache folder."""
    facts = path.stat()
    key = hashlib.sha256(f"{path.resolve()}:{facts.st_size}:{facts.st_mtime_ns}:{split}".encode()).hexdigest()[:16]
    kept = cache_folder() / f"{path.stem}-{split}-{key}.npz"
    found = read_cache(kept)
    if found is None:
        found = shuffled(*read(path, split))
        write_cache(kept, *found)
    return found


def shuffled(pixels: Bytes, labels: NDArray[np.int64]) -> tuple[Bytes, NDArray[np.int64]]:
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(labels))
    return pixels[order], labels[order]


def read_cache(path: Path) -> tuple[Bytes, NDArray[np.int64]] | None:
    try:
        found = load_arrays(path)
    except InputError:
        return None  # Whatever is wrong with a cache file, decoding again puts it right.
    pixels, labels = found.get("pixels"), found.get("labels")
    if pixels is None or labels is None or (pixels.dtype, labels.dtype) != (np.uint8, np.int64):
        return None
    if pixels.ndim != 4 or labels.shape != pixels.shape[:1]:
        return None
    return pixels, labels


def write_cache(path: Path, pixels: Bytes, labels: NDArray[np.int64]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, pixels=pixels, labels=labels)
    except (OSError, InputError):
        # A home folder that cannot be written costs the next run some seconds, nothing else.
        return
