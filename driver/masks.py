"""Masks that a person gives as a file."""

from __future__ import annotations

from pathlib import Path

import torch

from ..frontend.base.errors import InputError
from ..frontend.base.files import read_regular
from ..frontend.base.tensor_files import parse_tensors

__all__ = ["read_masks"]


def read_masks(path: Path) -> dict[str, torch.Tensor]:
    """Masks from a safetensors file. Raises InputError for a file that is none."""
    try:
        return parse_tensors(read_regular(path))[0]
    except FileNotFoundError:
        raise InputError(f"no such file: '{path}'") from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read masks from '{path}': {error}; write them with safetensors") from None
