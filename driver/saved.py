"""Models as files: `reconvene.save` and `reconvene.load`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..frontend.arguments import Inputs
from ..frontend.base.errors import InputError
from ..frontend.base.turns import tracing_in_turn
from ..frontend.capture import Model
from ..frontend.data.facts import facts_of
from ..frontend.program_file import StoredProgram, load_stored, save_program
from ..frontend.stored_compute import compute_of
from .api import captured
from .recording import recorded

__all__ = ["StoredProgram", "load", "save"]

Colours = Sequence[float] | NDArray[np.floating[Any]] | Tensor
"""A number for each of red, green and blue."""


@tracing_in_turn
def save(
    model: Model,
    example_inputs: Inputs | None,
    path: str | os.PathLike[str],
    *,
    classes: Iterable[str] | None = None,
    mean: Colours | None = None,
    std: Colours | None = None,
) -> None:
    """Writes a model as a ``.pt2`` file, which `load`, every function that takes a model, and the command line read. What the
    file of a model says of it, such as its certificate, goes with it.

    Args:
        model: as for `reconvene.capture`.
        example_inputs: as for `reconvene.capture`; None for a model that carries its own.
        path: of the file.
        classes: of a classifier of images: what each of its outputs is called, two or more. Without them the file says what
            the model's own file said, or nothing.
        mean, std: what images are normalised with, red, green and blue as shares of 255: numbers, an array or a tensor; of no
            meaning without `classes`. Without them it is as the model's own file said.

    Raises:
        InputError: the model cannot be captured, the file cannot be written, or classes and colours make no sense. An older
            file of that name is then untouched.
    """
    if classes is None and (mean is not None or std is not None):
        raise InputError("mean and std are of a classifier of images; name its classes, too")
    stored = load_stored(model) if isinstance(model, str | os.PathLike) else None
    module, inputs = captured(model if stored is None else stored.module, example_inputs)
    data = facts_of(module)
    if classes is not None:
        data = recorded(module, classes, mean, std, data)
    # What was found out of a file's program holds of its copy.
    notes = {} if stored is None else {"certificate": stored.certificate, "origin": stored.origin}
    save_program(module, inputs, path, data=data, compute=compute_of(module), **notes)


def load(path: str | os.PathLike[str]) -> StoredProgram:
    """What a ``.pt2`` file holds: `StoredProgram.module` and `StoredProgram.example_inputs`, and what it says of them.

    Nothing in the file is unpickled, imported or run.

    Raises:
        InputError: no such file, not a ``.pt2`` file, damaged, or one that asks for something to be run.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise InputError(f"models are loaded from a .pt2 file, and a {type(path).__name__} is no path of one")
    path = os.fsdecode(path)
    if os.path.isdir(path):
        raise InputError(f"'{os.fspath(path)}' is a folder; a bundle is opened with reconvene.Built.open")
    return load_stored(path)
