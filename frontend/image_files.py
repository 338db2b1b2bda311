"""The file formats that small image data sets come in. None of them is a pickle: nothing here runs what it reads."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from .errors import InputError
from .files import open_regular, read_regular
from .progress import track

__all__ = ["read_cifar_binary", "read_cifar_jpeg", "read_idx", "read_photograph"]

Bytes = NDArray[np.uint8]

CIFAR_CLASSES = 10
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE


def read_cifar_binary(path: Path) -> tuple[Bytes, NDArray[np.int64]]:
    """One file of the official binary CIFAR-10: pixels (N, 3, 32, 32) and labels (N,).

    Raises:
        InputError: the file cannot be read, is cut short, or holds labels above 9.
    """
    try:
        raw = np.frombuffer(read_regular(path), dtype=np.uint8)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    if not raw.size or raw.size % _RECORD:
        raise InputError(
            f"'{path}' has {raw.size} bytes, which is no whole number of CIFAR-10 records of {_RECORD};"
            " it was cut short: unpack it again"
        )
    records = raw.reshape(-1, _RECORD)
    return records[:, 1:].reshape(-1, 3, _SIDE, _SIDE).copy(), checked_labels(records[:, 0], path)


def read_cifar_jpeg(path: Path, split: str) -> tuple[Bytes, NDArray[np.int64]]:
    """One split of a ``cifar10-jpeg.npz``: pixels (N, 3, 32, 32) and labels (N,), in the file's order.

    Arrays of the file: ``header``, the JPEG header all images share; ``<split>_body``, the rest of the images one
    after another; ``<split>_len``, the length of each; ``<split>_y``, the labels.

    Raises:
        InputError: the file cannot be read, lacks an array, or holds something that is no 32x32 image.
    """
    names = ("header", f"{split}_body", f"{split}_len", f"{split}_y")
    try:
        with open_regular(path) as stream, np.load(stream, allow_pickle=False) as file:
            header, body, lengths, labels = (file[name] for name in names)
    except KeyError as error:
        raise InputError(f"'{path}' has no array {error.args[0].split()[0]}: it is no cifar10-jpeg.npz") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"cannot read '{path}' as a NumPy archive: {first_line(error)}; copy it again") from None
    ends = np.cumsum(lengths.astype(np.int64))
    if len(labels) != len(lengths) or (ends[-1] if len(ends) else 0) != len(body):
        raise InputError(f"the arrays of '{path}' do not fit each other: it is damaged; copy it again")
    pixels = np.empty((len(labels), 3, _SIDE, _SIDE), dtype=np.uint8)
    shared, start = header.tobytes(), 0
    for index, end in enumerate(track(ends.tolist(), "decoding CIFAR-10")):
        pixels[index] = decoded(shared + body[start:end].tobytes(), f"image {index} of '{path}'")
        start = end
    return pixels, checked_labels(labels, path)


def read_idx(path: Path) -> Bytes:
    """An IDX file of bytes, gzipped or not, with the shape it declares.

    Raises:
        InputError: the file cannot be read, is no IDX file of bytes, or is cut short.
    """
    try:
        raw = read_regular(path)
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read '{path}': {first_line(error)}") from None
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or len(raw) < 4 + 4 * raw[3]:
        raise InputError(f"'{path}' is no IDX file of bytes: its first four bytes are {raw[:4].hex(' ') or 'missing'}")
    shape = tuple(np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).tolist())
    values = np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * raw[3])
    if values.size != math.prod(shape):
        raise InputError(f"'{path}' declares {math.prod(shape)} values and holds {values.size}: it was cut short")
    return values.reshape(shape)


def read_photograph(path: Path, size: int) -> Bytes:
    """The middle of an image file as (3, size, size), 0..255. Raises InputError if it is no image.

    Scaled to 8/7 of `size` and cropped, as ImageNet classifiers are evaluated.
    """
    whole = round(size * 8 / 7)
    margin = (whole - size) // 2
    try:
        with open_regular(path) as stream, Image.open(stream) as image:
            scaled = image.convert("RGB").resize((whole, whole), Image.Resampling.BICUBIC)
            scaled = scaled.crop((margin, margin, margin + size, margin + size))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read '{path}' as an image: {first_line(error)}") from None
    return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1))


def decoded(jpeg: bytes, what: str) -> Bytes:
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            if image.size != (_SIDE, _SIDE):
                raise InputError(f"{what} measures {image.width}x{image.height}, not {_SIDE}x{_SIDE}")
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise InputError(f"{what} is no readable JPEG: {first_line(error)}; copy the file again") from None


def checked_labels(labels: NDArray[np.integer], path: Path) -> NDArray[np.int64]:
    if labels.size and int(labels.max()) >= CIFAR_CLASSES:
        raise InputError(f"'{path}' holds the label {int(labels.max())}; those of CIFAR-10 are 0 to 9")
    return labels.astype(np.int64)


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
