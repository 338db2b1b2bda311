"""The file formats that small image data sets come in. None of them is a pickle: nothing here runs what it reads."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..base.array_files import load_arrays
from ..base.errors import InputError
from ..base.files import read_regular
from ..base.limits import check_limit, check_unpacked
from ..base.progress import track

__all__ = [
    "fitted",
    "read_cifar_binary",
    "read_cifar_jpeg",
    "read_fitted",
    "read_idx",
    "read_image",
    "read_photograph",
]

Bytes = NDArray[np.uint8]

CIFAR_CLASSES = 10
_SIDE = 32
_RECORD = 1 + 3 * _SIDE * _SIDE
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "WEBP")
"""The library's others include some that start Ghostscript."""

_MOST_SIDE = 1 << 16
"""More than JPEG can say; scaling a longer one to a square takes memory by its length."""

_MOST_CROPS = 64
"""Of which a strip that is scaled has the length."""

_WHITE = (1 << 16) - 1
"""The most of 16 bits."""

_JPEG, _SCAN, _MOST_SCANS = b"\xff\xd8", b"\xff\xda", 100
"""Each scan of a progressive JPEG goes through all of its pixels, whose bytes may be none."""


def read_cifar_binary(path: Path) -> tuple[Bytes, NDArray[np.int64]]:
    """One file of the official binary CIFAR-10: pixels (N, 3, 32, 32) and labels (N,).

    Raises:
        InputError: the file cannot be read, is cut short, or holds labels above 9.
    """
    raw = np.frombuffer(_content(path), dtype=np.uint8)
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
    arrays = load_arrays(path)
    names = ("header", f"{split}_body", f"{split}_len", f"{split}_y")
    for name in names:
        if name not in arrays:
            raise InputError(f"'{path}' has no array {name}: it is no cifar10-jpeg.npz")
        if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "iu" or arrays[name].min(initial=0) < 0:
            raise InputError(f"the array {name} of '{path}' is no list of numbers from 0: it is no cifar10-jpeg.npz")
    header, body, lengths, labels = (arrays[name] for name in names)
    ends = np.cumsum(lengths.astype(np.int64))
    if len(labels) != len(lengths) or (ends[-1] if len(ends) else 0) != len(body) or lengths.max(initial=0) > len(body):
        raise InputError(f"the arrays of '{path}' do not fit each other: it is damaged; copy it again")
    check_limit("array", len(labels) * 3 * _SIDE * _SIDE, f"'{path}'")
    pixels = np.empty((len(labels), 3, _SIDE, _SIDE), dtype=np.uint8)
    shared, start = header.tobytes(), 0
    for index, end in enumerate(track(ends.tolist(), "decoding CIFAR-10")):
        pixels[index] = decoded(shared + body[start:end].tobytes(), f"image {index} of '{path}'", _SIDE)
        start = end
    return pixels, checked_labels(labels, path)


def read_idx(path: Path) -> Bytes:
    """An IDX file of bytes, gzipped or not, with the shape it declares.

    Raises:
        InputError: the file cannot be read, is no IDX file of bytes, is cut short, or claims more than the limits allow.
    """
    raw = _content(path)
    stream: BinaryIO = io.BytesIO(raw)
    if raw[:2] == b"\x1f\x8b":
        stream = gzip.GzipFile(fileobj=stream)  # type: ignore[assignment]
    try:
        start = stream.read(4)
        sizes = stream.read(4 * start[3]) if start[:3] == b"\x00\x00\x08" and len(start) == 4 else b""
        if not sizes or len(sizes) < 4 * start[3]:
            raise InputError(
                f"'{path}' is no IDX file of bytes: its first four bytes are {start.hex(' ') or 'missing'}"
            )
        shape = tuple(np.frombuffer(sizes, dtype=">u4").tolist())
        claimed = math.prod(shape)
        check_limit("array", claimed, f"'{path}'")
        check_unpacked(claimed, len(raw), f"'{path}'")
        values = np.frombuffer(stream.read(claimed + 1), dtype=np.uint8)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read '{path}': {first_line(error)}") from None
    if values.size != claimed:
        found = "more" if values.size > claimed else str(values.size)
        raise InputError(f"'{path}' declares {claimed} values and holds {found}: it was cut short, or is damaged")
    try:
        return values.reshape(shape)
    except ValueError:
        raise InputError(f"'{path}' declares a shape that no array has; it is damaged") from None


def read_photograph(path: Path, size: int) -> Bytes:
    """The middle of an image file as (3, size, size), 0..255. Raises InputError if it is no image.

    Scaled to 8/7 of `size` and cropped, as ImageNet classifiers are evaluated.
    """
    whole = round(size * 8 / 7)
    margin = (whole - size) // 2
    image = Image.fromarray(_rgb(_content(path), f"'{path}'"))
    scaled = image.resize((whole, whole), Image.Resampling.BICUBIC)
    return _planes(np.asarray(scaled.crop((margin, margin, margin + size, margin + size))))


def read_fitted(path: Path, height: int, width: int) -> Bytes:
    """The middle of an image file as (3, height, width), 0..255; see `fitted`. Raises InputError if it is no image."""
    with _opened(_content(path), f"'{path}'") as image:
        return fitted(image, height, width, f"'{path}'")


def fitted(image: Image.Image, height: int, width: int, what: str = "an image") -> Bytes:
    """The middle of an image, upright, as (3, height, width), 0..255, RGB.

    Scaled, bilinear and by an eighth less than to cover that size, then cropped, as classifiers are evaluated: what
    torchvision's ``Resize`` and ``CenterCrop`` make of it. Unlike there, an image of that size stays as it is, one that says
    how it was held (EXIF) is turned first, one of 16 bits is taken to 8, and of a strip that is longer than 64 crops the
    middle is taken before it is scaled.

    Raises:
        InputError: its grey values have more than 16 bits, or are floats; `what` it is begins the message.
    """
    upright = _in_bytes(ImageOps.exif_transpose(image), what)
    if upright.size != (width, height):
        upright = _middle(upright, height, width)
        short, side = min(((upright.height, height), (upright.width, width)), key=lambda pair: pair[0] / pair[1])
        whole = round(side * 8 / 7)
        wide, high = (whole if extent == short else int(whole * extent / short) for extent in upright.size)
        left, top = round((wide - width) / 2), round((high - height) / 2)
        scaled = upright.resize((wide, high), Image.Resampling.BILINEAR)
        upright = scaled.crop((left, top, left + width, top + height))
    return _planes(np.asarray(upright))


def _middle(image: Image.Image, height: int, width: int) -> Image.Image:
    """Of a strip that is longer than `_MOST_CROPS` crops, these: scaled as a whole, few bytes would take much memory."""
    unit = min(image.width / width, image.height / height)
    margins = []
    for extent, side in ((image.width, width), (image.height, height)):
        kept = math.ceil(_MOST_CROPS * side * unit)
        margins.append(max(0, extent - kept) // 2)
    across, down = margins
    if not across and not down:
        return image
    return image.crop((across, down, image.width - across, image.height - down))


def _in_bytes(image: Image.Image, what: str) -> Image.Image:
    """An image in red, green and blue of 8 bits. Raises InputError where its numbers say nothing of what is white."""
    if image.mode.startswith("I"):
        numbers = np.asarray(image).astype(np.int64)
        if numbers.size and not 0 <= numbers.min() <= numbers.max() <= _WHITE:
            raise InputError(
                f"{what} has grey values from {numbers.min()} to {numbers.max()}; give 8 or 16 bits a pixel"
            )
        image = Image.fromarray(((numbers * 255 + _WHITE // 2) // _WHITE).astype(np.uint8))
    elif image.mode == "F":
        raise InputError(f"{what} has grey values that are floats; give 8 or 16 bits a pixel")
    return image.convert("RGB")


def decoded(content: bytes, what: str, side: int) -> Bytes:
    """An image of `side` by `side` pixels as (3, side, side). Raises InputError if it is another one, or none."""
    return _planes(_rgb(content, what, side))


def read_image(path: Path, side: int) -> Bytes:
    """The same of a file."""
    return decoded(_content(path), f"'{path}'", side)


def _rgb(content: bytes, what: str, side: int | None = None) -> Bytes:
    """Pixels (H, W, 3)."""
    with _opened(content, what, side) as image:
        return np.asarray(_in_bytes(image, what))


@contextmanager
def _opened(content: bytes, what: str, side: int | None = None) -> Iterator[Image.Image]:
    """An image to be decoded within the block, and no more than is said. Of the formats that the library knows, these need no
    other program.
    """
    try:
        if content[:2] == _JPEG and content.count(_SCAN) > _MOST_SCANS:
            raise InputError(f"{what} has {content.count(_SCAN)} scans, and no camera writes more than {_MOST_SCANS}")
        with _own_limit(), Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if side is not None and image.size != (side, side):
                raise InputError(f"{what} measures {image.width}x{image.height}, not {side}x{side}")
            check_limit("pixels", image.width * image.height, what)
            if max(image.size) > _MOST_SIDE:
                raise InputError(
                    f"{what} measures {image.width}x{image.height}; a side has {_MOST_SIDE} pixels at most"
                )
            yield image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{what} is no image, or is damaged; give one of {', '.join(_FORMATS)}") from None
    except Exception as error:  # The library lets pass whatever its decoders meet in damaged files.
        raise InputError(f"cannot read {what} as an image: {first_line(error)}; copy the file again") from None


@contextmanager
def _own_limit() -> Iterator[None]:
    """Without the library's limit of pixels, which nobody could raise from outside."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _planes(pixels: Bytes) -> Bytes:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _content(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from None


def checked_labels(labels: NDArray[np.integer], path: Path) -> NDArray[np.int64]:
    if labels.size and not 0 <= int(labels.max()) < CIFAR_CLASSES:
        raise InputError(f"'{path}' holds the label {int(labels.max())}; those of CIFAR-10 are 0 to 9")
    return labels.astype(np.int64)


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
