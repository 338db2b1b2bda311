"""Handwritten digits that arrive with the package scikit-learn: 1,797 images of 8x8 pixels, read without importing it.

The test set of UCI's Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998, doi 10.24432/C50P49, CC BY 4.0):
each pixel counts the dark ones, 0 to 16, of a 4x4 block of a scanned digit.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..base.errors import InputError
from ..base.files import read_regular
from ..base.limits import check_limit

__all__ = ["DIGITS_SIDE", "find_digits", "read_digits"]

_FILE = "digits.csv.gz"
_SIDE, _LARGEST, _CLASSES = 8, 16, 10
_REPEATED = 2
"""Times that each pixel is repeated along both sides, for networks that halve their images four times."""
DIGITS_SIDE = _SIDE * _REPEATED
_MOST_BYTES = 1 << 22
"""Of the text: ten times what there is."""


def find_digits(root: Path | None = None) -> Path:
    """The file, in the folder `root` if that is given, else in the package. Raises InputError where there is none."""
    if root is not None:
        places = [root]
    else:
        # Found, not imported: scikit-learn takes seconds to import.
        spec = importlib.util.find_spec("sklearn")
        places = [Path(place, "datasets", "data") for place in (spec.submodule_search_locations or () if spec else ())]
    found = [place / _FILE for place in places if (place / _FILE).is_file()]
    if not found:
        where = f"'{root}' holds no {_FILE}" if root is not None else "the digits of scikit-learn are missing"
        raise InputError(f"{where}; get them with: pip install scikit-learn")
    return found[0]


def read_digits(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pixels (N, 3, 16, 16), 0..255, and labels (N,), in the file's order: grey, each pixel twice along both sides.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    values = _table(path)
    images, labels = values[:, :-1], values[:, -1]
    if not len(values) or images.min() < 0 or images.max() > _LARGEST or labels.min() < 0 or labels.max() >= _CLASSES:
        raise InputError(f"'{path}' holds no digits of {_SIDE}x{_SIDE} pixels from 0 to {_LARGEST}; install it again")
    grey = np.rint(images * (255 / _LARGEST)).astype(np.uint8).reshape(-1, 1, _SIDE, _SIDE)
    large = grey.repeat(_REPEATED, 2).repeat(_REPEATED, 3)
    return large.repeat(3, 1), labels


def _table(path: Path) -> NDArray[np.int64]:
    """A line for each image: its pixels row by row, and its label."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(read_regular(path))) as stream:
            text = stream.read(_MOST_BYTES + 1)
        check_limit("text", len(text), f"'{path}'")
        if len(text) > _MOST_BYTES:
            raise InputError(f"'{path}' is larger than the digits of scikit-learn are; install it again")
        values = np.loadtxt(io.StringIO(text.decode("ascii")), delimiter=",", dtype=np.int64, ndmin=2)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"cannot read '{path}': {str(error).splitlines()[0]}; install scikit-learn again") from None
    if values.shape[1] != _SIDE * _SIDE + 1:
        raise InputError(
            f"'{path}' has {values.shape[1]} numbers in a line, not {_SIDE * _SIDE + 1}: it holds no digits of {_SIDE}x{_SIDE}"
        )
    return values
