"""The Python version of CIFAR-10, read without unpickling.

A pickle is a program. `pickletools.genops` only lists its instructions; the pixels are the one long string among them, and
the labels the numbers listed after the key ``labels``. Nothing is run, so whatever else the file holds does no harm.
"""

from __future__ import annotations

import pickletools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.errors import InputError
from ..base.files import read_regular
from .image_files import Bytes, checked_labels

__all__ = ["read_cifar_pickle"]

_SIDE = 32
_RECORD = 3 * _SIDE * _SIDE
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
_INTEGERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
_UNNOTED = {"MARK", "EMPTY_LIST", "LIST", "APPENDS", "APPEND", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
"""Instructions that may stand between the numbers of a list."""


def read_cifar_pickle(path: Path) -> tuple[Bytes, NDArray[np.int64]]:
    """One batch file of ``cifar-10-batches-py``: pixels (N, 3, 32, 32) and labels (N,).

    Raises:
        InputError: the file cannot be read, or is not laid out as the official batches are.
    """
    try:
        pixels, labels = _found(read_regular(path))
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror or error}") from None
    except InputError:
        raise
    except (ValueError, IndexError, UnicodeDecodeError):
        raise InputError(
            f"'{path}' is not laid out as the official batches of CIFAR-10 are, or was cut short; unpack it again, or"
            " get the 'binary version'"
        ) from None
    images = np.frombuffer(pixels, np.uint8).reshape(len(labels), 3, _SIDE, _SIDE)
    return images.copy(), checked_labels(np.array(labels, np.int64), path)


def _found(raw: bytes) -> tuple[bytes, list[int]]:
    pixels, labels, listing = b"", list[int](), False
    for opcode, argument, _ in pickletools.genops(raw):
        if opcode.name in _STRINGS or opcode.name in _TEXTS:
            text = argument if isinstance(argument, bytes) else str(argument).encode("latin-1", "replace")
            if len(text) >= _RECORD and opcode.name in _STRINGS:
                if pixels:
                    raise ValueError("two long strings")
                pixels = text
            listing = text == b"labels"
        elif listing and opcode.name in _INTEGERS:
            labels.append(int(argument or 0))
        elif opcode.name not in _UNNOTED:
            listing = False
    if not labels or len(pixels) != len(labels) * _RECORD or min(labels) < 0:
        raise ValueError("no images, or not as many as labels")
    return pixels, labels
