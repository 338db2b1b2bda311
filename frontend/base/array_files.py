"""NumPy's files, ``.npy`` and ``.npz``: read once, by one reader, plain numbers only.

NumPy's own ``load`` takes the last of two arrays of one name, allocates what a header claims, and unpickles if it is let.
Here the claim is compared with what is there first.
"""

from __future__ import annotations

import io
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .files import open_regular, read_open
from .zip_files import members, reading_zip

__all__ = ["load_arrays", "parse_npy"]

_MAGIC, _ZIP, _EMPTY_ZIP = b"\x93NUMPY", b"PK\3\4", b"PK\5\6"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_PLAIN = "biufc"
"""Kinds of numbers. Others are texts, dates, records, and objects, which are pickles."""


def load_arrays(path: str | os.PathLike[str]) -> dict[str | None, NDArray[Any]]:
    """The arrays of a ``.npz`` file by name, in its order, or that of a ``.npy`` file under None.

    Raises:
        InputError: there is no such file, it is neither, damaged, holds other things than numbers, or claims too much.
    """
    what = f"cannot read '{path}' as .npy or .npz"
    try:
        with open_regular(path) as stream:
            if stream.read(4) not in (_ZIP, _EMPTY_ZIP):
                return {None: parse_npy(read_open(stream, path), what)}
            with reading_zip(stream, what) as archive:
                contents = members(archive, what)
    except FileNotFoundError:
        raise InputError(f"no such file: '{path}'") from None
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from None
    found: dict[str | None, NDArray[Any]] = {
        name.removesuffix(".npy"): parse_npy(content, f"{what}: '{name}'") for name, content in contents.items()
    }
    if len(found) < len(contents):
        raise InputError(f"{what}: two of its arrays have one name; save it anew")
    return found


def parse_npy(content: bytes, what: str) -> NDArray[Any]:
    """The array that the bytes of a ``.npy`` file are; it shares their memory.

    Args:
        what: begins the messages.

    Raises:
        InputError: they are not, or hold other things than numbers, or more or less than the header says.
    """
    if content[: len(_MAGIC)] != _MAGIC:
        raise InputError(f"{what}: it does not begin as NumPy's files do; write it with numpy.save or numpy.savez")
    stream = io.BytesIO(memoryview(content)[: 1 << 16])
    try:
        version = np.lib.format.read_magic(stream)
        shape, by_column, dtype = _HEADERS[version](stream)
    except Exception:  # NumPy evaluates the header as a literal, which fails in many ways.
        raise InputError(f"{what}: its header makes no sense, or is of fields; save it anew with numpy.save") from None
    if dtype.hasobject:
        raise InputError(f"{what}: it holds Python objects, which are pickles and may run code; save numbers")
    if dtype.kind not in _PLAIN or dtype.subdtype is not None:
        raise InputError(f"{what}: it holds {_short(dtype)}, no numbers; convert it first, with astype")
    start = stream.tell()
    if any(extent < 0 for extent in shape) or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise InputError(
            f"{what}: its header says {_short(shape)} of {dtype}, which is not what {len(content) - start} bytes hold; it was"
            " cut short, or is damaged"
        )
    try:
        flat = np.frombuffer(content, dtype, math.prod(shape), start)
        if dtype.kind == "b" and flat.view(np.uint8).max(initial=0) > 1:
            raise InputError(f"{what}: it holds booleans that are neither true nor false; it is damaged")
        return flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)
    except InputError:
        raise
    except (ValueError, OverflowError):  # Too many axes, or an axis that no array has beside one of 0.
        raise InputError(f"{what}: no array has the shape {_short(shape)}; it is damaged") from None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
