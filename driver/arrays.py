"""Inputs and outputs of the command line as NumPy files, in order or by name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..backends.signature import TensorSpec
from ..frontend.base.array_files import load_arrays
from ..frontend.base.arrays import as_tensor
from ..frontend.base.errors import InputError
from ..frontend.base.files import replacing

__all__ = ["Given", "array_names", "check_array_file", "in_order", "read_arrays", "read_given", "write_arrays"]

_SUFFIXES = (".npy", ".npz")


@dataclass(frozen=True)
class Given:
    """One input that a person gave.

    Attributes:
        name: what it is called, None if it goes by its place.
        source: the file, for messages.
        said: whether the person gave the name; what a file calls its arrays may mean nothing to the model.
    """

    name: str | None
    tensor: torch.Tensor
    source: str
    said: bool = False


def read_given(words: Sequence[str]) -> list[Given]:
    """The arrays of ``.npy`` and ``.npz`` files; ``NAME=FILE.npy`` names the input that it is for.

    Raises:
        InputError: a file cannot be read, or a name is given for several arrays.
    """
    found: list[Given] = []
    for word in words:
        name, equals, rest = word.partition("=")
        if not equals or Path(word).exists():
            found += _arrays(Path(word))
            continue
        arrays = _arrays(Path(rest))
        if len(arrays) != 1:
            raise InputError(f"'{word}' names {len(arrays)} arrays by one name; leave out '{name}=', a .npz has names")
        found.append(Given(name, arrays[0].tensor, rest, said=True))
    return found


def in_order(given: Sequence[Given], names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """The arrays in the order of the model's inputs: by name where they have those of the model, else as they come.

    Raises:
        InputError: there is no input of a name that was given, or some inputs have names and others lack them.
    """
    for entry in given:
        if entry.said and entry.name not in names:
            raise InputError(f"the model has no input '{entry.name}'; it takes {', '.join(names)}")
    if not any(entry.name in names for entry in given):
        return tuple(entry.tensor for entry in given)
    found: dict[str | None, torch.Tensor] = {}
    for entry in given:
        if entry.name not in names:
            what = f"'{entry.name}'" if entry.name is not None else "an array without a name"
            raise InputError(
                f"'{entry.source}' holds {what}, and other inputs go by name; the model takes {', '.join(names)}"
            )
        if entry.name in found:
            raise InputError(f"input '{entry.name}' was given twice")
        found[entry.name] = entry.tensor
    if missing := [name for name in names if name not in found]:
        raise InputError(f"input '{missing[0]}' was not given; the model takes {', '.join(names)}")
    return tuple(found[name] for name in names)


def read_arrays(path: Path) -> tuple[torch.Tensor, ...]:
    """The array of a ``.npy`` file, or those of a ``.npz`` in its order. Raises InputError for anything else."""
    return tuple(entry.tensor for entry in _arrays(path))


def check_array_file(path: Path | None, count: int | None = None) -> None:
    """Raises InputError unless `path` is ``.npz``, or ``.npy`` for the one of `count` arrays (None: not known yet)."""
    if path is None:
        return
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"outputs are written as .npy or .npz, not as '{path.name}'; name it {path.stem or 'outputs'}.npz"
        )
    if path.suffix.lower() == ".npy" and count not in (None, 1):
        raise InputError(f"'{path.name}' is for one array, and the model gives {count}; name a .npz file")


def array_names(specs: Sequence[TensorSpec]) -> list[str]:
    """What the outputs are called in files: as the model calls them, or ``output_0`` and so on."""
    return [re.sub(r"^output(\d+)$", r"output_\1", spec.name) for spec in specs]


def write_arrays(path: Path, names: Sequence[str], values: Sequence[torch.Tensor]) -> None:
    """Writes a ``.npz`` with these names, or the one array as ``.npy``. Raises InputError if that cannot be done."""
    check_array_file(path, len(values))
    arrays = [value.detach().cpu().numpy() for value in values]
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npy":
            np.save(file, arrays[0], allow_pickle=False)
            return
        # numpy.savez takes the names as keywords, of which it has some itself.
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in zip(names, arrays, strict=True):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def _arrays(path: Path) -> list[Given]:
    what = f"the array in '{path}'"
    return [
        Given(None if name is None else _own_name(name), as_tensor(array, what), str(path))
        for name, array in load_arrays(path).items()
    ]


def _own_name(name: str) -> str | None:
    """None for what NumPy calls an array that nobody gave a name."""
    return None if re.fullmatch(r"arr_\d+", name) else name
