"""The highest of many numbers, exactly as many as wanted."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["highest", "highest_of_each"]


def highest(values: Tensor, count: int) -> Tensor:
    """True at the `count` highest values, of equal ones at the last; of the shape of `values`."""
    flat = values.detach().reshape(-1)
    if count >= flat.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count).values
    keep = flat > threshold
    spared = count - int(keep.sum())
    if spared:
        keep[(flat == threshold).nonzero().reshape(-1)[-spared:]] = True
    return keep.reshape(values.shape)


def highest_of_each(values: Tensor, count: int) -> Tensor:
    """The same along the last axis, for every place along the others."""
    order = values.detach().argsort(dim=-1, stable=True)
    keep = torch.zeros_like(values, dtype=torch.bool)
    return keep.scatter_(-1, order[..., max(0, values.shape[-1] - count) :], True)
