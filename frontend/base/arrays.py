"""NumPy arrays, of whatever layout, where tensors are meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from .errors import InputError

__all__ = ["as_tensor", "as_tensors"]


def as_tensor(value: Any, what: str = "an input") -> torch.Tensor:
    """A NumPy array, or a number of NumPy's, or a tensor, as a strided tensor in main memory.

    Memory is shared where PyTorch can look at it; arrays that run backwards, are read-only, have another byte order or
    are not aligned are copied.

    Args:
        what: names it in errors.

    Raises:
        InputError: it is something else, has no data, or is of a dtype that PyTorch lacks.
    """
    if isinstance(value, torch.Tensor):
        return _strided(value, what)
    if not isinstance(value, np.ndarray | np.generic):
        raise InputError(f"{what} must be a torch tensor or numpy array, got {type(value).__name__}")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"{what} is a masked array, and the mask would be lost; give filled(value) of it")
    array = np.asarray(value)
    itemsize = array.itemsize or 1
    looked_at = array.flags.writeable and array.flags.aligned and array.dtype.isnative
    if not looked_at or any(stride < 0 or stride % itemsize for stride in array.strides):
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise InputError(f"{what} is of {array.dtype}, which PyTorch lacks; convert it first, with astype") from None


def as_tensors(values: Any) -> Any:
    """The same nested containers with tensors in place of NumPy's arrays and numbers; all else is left as it is."""
    if isinstance(values, Mapping):
        # Libraries have mappings of their own for what they give to a model.
        return {name: as_tensors(value) for name, value in values.items()}
    return tree_map(lambda leaf: as_tensor(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, values)


def _strided(tensor: torch.Tensor, what: str) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.is_nested:
        raise InputError(f"{what} is a nested tensor; give to_padded_tensor() of it")
    if tensor.layout is not torch.strided:
        raise InputError(f"{what} is {str(tensor.layout).removeprefix('torch.')}; give to_dense() of it")
    if tensor.is_meta or tensor.is_quantized:
        kind = "meta" if tensor.is_meta else "quantised"
        raise InputError(f"{what} is a {kind} tensor; give one that holds the numbers themselves")
    return tensor.cpu().resolve_conj().resolve_neg()
