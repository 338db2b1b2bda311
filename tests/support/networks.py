"""Small networks around one operator: channels that can be pruned before it, and a layer that reads them after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

__all__ = ["Around", "Between", "Features", "Joined", "convolution", "normalisation"]

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMALISATIONS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def convolution(rank: int, *args: Any, **options: Any) -> nn.Module:
    """A convolution over `rank` spatial axes."""
    layer: nn.Module = _CONVOLUTIONS[rank](*args, **options)
    return layer


def normalisation(rank: int, channels: int) -> nn.Module:
    """Batch normalisation over `rank` spatial axes."""
    layer: nn.Module = _NORMALISATIONS[rank](channels)
    return layer


class Around(nn.Module):
    """convolution, `inner`, and a padded convolution (if `reads` says how many channels it gets).

    What masks of kind M1 leave of a channel is its bias. A normalisation would only make it another number.
    """

    def __init__(
        self,
        inner: Callable[..., Any],
        rank: int = 2,
        width: int = 8,
        reads: int | None = 8,
        padding: int = 1,
        **parts: nn.Module,
    ) -> None:
        super().__init__()
        self.before = convolution(rank, 3, width, 3, padding=1)
        self.inner = inner
        self.parts = nn.ModuleDict(parts)
        self.after = convolution(rank, reads, 4, 3, padding=padding) if reads else None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.inner(self.before(x), **self.parts)
        return self.after(y) if self.after is not None else y


class Joined(nn.Module):
    """Two convolutions, joined by `inner`, read by a padded one."""

    def __init__(self, inner: Callable[..., Any], width: int = 8, reads: int | None = 8, padding: int = 1) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(3, width, 1)
        self.inner = inner
        self.after = nn.Conv2d(reads, 4, 3, padding=padding) if reads else None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.inner(self.left(x), self.right(x))
        return self.after(y) if self.after is not None else y


class Features(nn.Module):
    """linear, `inner`, linear on the last axis."""

    def __init__(
        self, inner: Callable[..., Any], width: int = 8, reads: int | None = 8, size: int = 6, **parts: nn.Module
    ) -> None:
        super().__init__()
        self.before = nn.Linear(size, width)
        self.inner = inner
        self.parts = nn.ModuleDict(parts)
        self.after = nn.Linear(reads, 4) if reads else None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.inner(self.before(x), **self.parts)
        return self.after(y) if self.after is not None else y


class Between(nn.Module):
    """linear layers for query, key and value, joined by `inner`, read by a linear layer."""

    def __init__(
        self, inner: Callable[..., Any], width: int = 8, narrow: int | None = None, reads: int | None = 8
    ) -> None:
        super().__init__()
        self.query = nn.Linear(6, width)
        self.key, self.value = nn.Linear(6, narrow or width), nn.Linear(6, narrow or width)
        self.inner = inner
        self.after = nn.Linear(reads, 4) if reads else None

    def forward(self, x: torch.Tensor) -> Any:
        y = self.inner(self.query(x), self.key(x), self.value(x))
        return self.after(y) if self.after is not None else y
