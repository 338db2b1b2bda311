"""What a compiled model takes and gives, and whether given values are that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..frontend.arrays import as_tensor
from ..frontend.errors import InputError
from .weights import ALIGNMENT

__all__ = ["TensorSpec", "checked_inputs"]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy spells it) of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


def checked_inputs(specs: Sequence[TensorSpec], inputs: Sequence[Any]) -> list[torch.Tensor]:
    """`inputs` as contiguous tensors in main memory that vectors can be loaded from.

    They share memory with tensors and arrays that are so already.

    Raises:
        InputError: their number, or the kind, shape or dtype of one, is not what `specs` say.
    """
    if len(inputs) != len(specs):
        names = ", ".join(f"{spec.name} ({spec})" for spec in specs)
        raise InputError(f"the model takes {len(specs)} inputs, got {len(inputs)}; give {names}")
    return [_checked(spec, value) for spec, value in zip(specs, inputs, strict=True)]


def _checked(spec: TensorSpec, value: Any) -> torch.Tensor:
    tensor = as_tensor(value, f"input '{spec.name}'")
    got = TensorSpec(spec.name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
    if got != spec:
        raise InputError(f"input '{spec.name}' must be {spec}, got {got}")
    return _placed(tensor)


def _placed(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_contiguous() and not tensor.data_ptr() % ALIGNMENT:
        return tensor
    # PyTorch aligns what it allocates. NumPy copies on this thread: PyTorch's others may not have survived a fork.
    placed = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
    if tensor.dtype is torch.bfloat16:
        return placed.copy_(tensor)
    np.copyto(placed.numpy(), tensor.numpy())
    return placed
