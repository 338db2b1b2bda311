"""Inputs and outputs of ``reconvene run`` as NumPy files."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..frontend.arrays import as_tensor
from ..frontend.errors import InputError
from ..frontend.files import replacing

__all__ = ["read_arrays", "write_arrays"]


def read_arrays(path: Path) -> tuple[torch.Tensor, ...]:
    """The array of a ``.npy`` file, or those of a ``.npz`` in its order. Raises InputError for anything else."""
    try:
        found = np.load(path, allow_pickle=False)
        arrays = [found[name] for name in found.files] if isinstance(found, np.lib.npyio.NpzFile) else [found]
        return tuple(as_tensor(array, f"the array in '{path}'") for array in arrays)
    except FileNotFoundError:
        raise InputError(f"no such file: '{path}'") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read '{path}' as .npy or .npz: {str(error).splitlines()[0]}") from None


def write_arrays(path: Path, values: Sequence[torch.Tensor]) -> None:
    """Writes a ``.npz`` with output_0, output_1 and so on. Raises InputError if that cannot be done."""
    arrays = {f"output_{index}": value.detach().cpu().numpy() for index, value in enumerate(values)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
