"""Weights as files of a bundle, named by their content, that are mapped and not copied.

A large tensor has a file to itself, so that bundles with the same tensor have the same file: it can be hard-linked, and
processes that map it share its pages. All small ones are in one file together.
"""

from __future__ import annotations

import errno
import hashlib
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import tvm

from ...frontend.base.errors import InputError
from ...frontend.base.files import open_regular
from ..dtypes import tensor_bytes, torch_dtype
from ..tensor_spec import ALIGNMENT

__all__ = [
    "WeightPlace",
    "is_weights",
    "map_weights",
    "names_contents",
    "pack",
    "weight_bytes",
    "weights_digest",
    "write_weights",
]

_OWN_FILE_BYTES = 16 << 10
"""Bytes from which a tensor has a file to itself."""


_PREFIX, _SUFFIX, _DIGITS = "weights-", ".bin", 16


@dataclass(frozen=True)
class WeightPlace:
    """Where one weight lies: a file, an offset in it, and how it is seen there."""

    file: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        return tensor_bytes(self.shape, self.dtype)


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def names_contents(name: str, digest: str) -> bool:
    """Whether a file of this name holds contents with the SHA-256 `digest`."""
    return name == f"{_PREFIX}{digest[:_DIGITS]}{_SUFFIX}"


def weight_bytes(weights: Sequence[Any]) -> int:
    """Bytes of all tensors together."""
    return sum(tensor_bytes(weight.shape, str(weight.dtype)) for weight in weights)


def weights_digest(weights: Sequence[Any]) -> str:
    """SHA-256 of dtypes, shapes and contents of all tensors, in order."""
    digest = hashlib.sha256()
    for array in map(_array, weights):
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(_contents(array))
    return digest.hexdigest()


def write_weights(weights: Sequence[Any], folder: Path) -> tuple[WeightPlace, ...]:
    """Writes TVM's tensors to files in `folder`; the place of each, in order. Equal tensors are written once."""
    arrays = [_array(weight) for weight in weights]
    together = BytesIO()
    starts = iter(pack([array for array in arrays if array.nbytes < _OWN_FILE_BYTES], together))
    common = _write(together.getbuffer(), folder) if any(array.nbytes < _OWN_FILE_BYTES for array in arrays) else ""
    return tuple(
        WeightPlace(common, next(starts), array.shape, str(array.dtype))
        if array.nbytes < _OWN_FILE_BYTES
        else WeightPlace(_write(_contents(array), folder), 0, array.shape, str(array.dtype))
        for array in arrays
    )


def pack(weights: Sequence[Any], stream: BinaryIO, alignment: int = ALIGNMENT) -> tuple[int, ...]:
    """Writes `weights` one after the other, equal ones once; where each begins, a multiple of `alignment` bytes.

    What is written is not empty, and its length is a multiple of `alignment`.
    """
    known: dict[bytes, int] = {}
    offsets, end = [], 0
    for weight in weights:
        contents = _contents(_array(weight))
        digest = hashlib.sha256(contents).digest()
        if digest not in known:
            known[digest] = end
            padding = bytes(-len(contents) % alignment)
            stream.write(contents)
            stream.write(padding)
            end += len(contents) + len(padding)
        offsets.append(known[digest])
    if not end:
        stream.write(bytes(alignment))
    return tuple(offsets)


def map_weights(places: Sequence[WeightPlace], folder: Path, *, links: bool = False) -> tuple[Any, ...]:
    """TVM's tensors over the files in `folder`, private to this process if it should ever write them.

    Args:
        links: whether the files may be links that lead out of the folder.

    Raises:
        InputError: a place is not within its file, or the file cannot be read.
        MemoryError: there is no room for them.
    """
    within = None if links else folder
    maps = {name: _mapped(folder / name, within) for name in dict.fromkeys(place.file for place in places)}
    return tuple(_tensor(place, maps[place.file], folder) for place in places)


def _mapped(path: Path, within: Path | None) -> mmap.mmap:
    try:
        with open_regular(path, within=within) as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(f"no memory to map '{path}'") from None
        raise InputError(f"cannot map '{path}': {error}; copy the bundle again") from None


def _tensor(place: WeightPlace, mapped: mmap.mmap, folder: Path) -> Any:
    if place.offset % ALIGNMENT or not 0 <= place.offset <= len(mapped) - place.bytes:
        raise InputError(f"'{place.file}' in bundle '{folder}' is too short for its weights; copy the bundle again")
    kind = torch_dtype(place.dtype)
    count = math.prod(place.shape)
    flat = (
        torch.frombuffer(mapped, dtype=kind, count=count, offset=place.offset) if count else torch.empty(0, dtype=kind)
    )
    return tvm.runtime.from_dlpack(flat.reshape(place.shape))


def _array(weight: Any) -> Any:
    """A TVM tensor, or an array, as a contiguous array; not copied if that can be."""
    return np.asarray(weight if isinstance(weight, np.ndarray) else np.from_dlpack(weight), order="C")


def _contents(array: Any) -> memoryview:
    return memoryview(array.reshape(-1).view("uint8"))


def _write(contents: memoryview, folder: Path) -> str:
    name = f"{_PREFIX}{hashlib.sha256(contents).hexdigest()[:_DIGITS]}{_SUFFIX}"
    (folder / name).write_bytes(contents)
    return name
