"""Kernels of weighted layers seen as ``groups x out/groups x in/groups x taps``, whatever the order they are stored in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..layers import Layer

__all__ = ["Selection", "any_of", "blocks_of", "stored_form", "weighted_taps"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def blocks_of(weight: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The weight as groups x out/groups x in/groups x taps."""
    first = weight.shape[0] // layer.groups
    kernel = weight.reshape(layer.groups, first, weight.shape[1], -1)
    return kernel.transpose(1, 2) if layer.transposed else kernel


def stored_form(kernel: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The inverse of `blocks_of`, for a kernel that may have lost channels."""
    stored = kernel.transpose(1, 2) if layer.transposed else kernel
    groups, first, second, _ = stored.shape
    return stored.reshape(groups * first, second, *layer.taps).contiguous()


def weighted_taps(kernel: torch.Tensor, rows: NDArray[np.int64], weight: Floats) -> Floats:
    """``sum over k of weight[g, k] * kernel[g, rows, k]`` in float64: groups x rows x taps.

    Works through a few rows at a time, so that no float64 copy of a large kernel is made.
    """
    columns = np.flatnonzero((weight != 0).any(0))
    groups, _, width, taps = kernel.shape
    if 4 * len(columns) > width:  # Picking most columns costs more than multiplying by zero.
        columns = np.arange(width)
    factor = torch.from_numpy(np.ascontiguousarray(weight[:, columns]))
    chunk = max(1, (1 << 21) // max(1, groups * len(columns) * taps))
    parts = []
    for start in range(0, len(rows), chunk):
        part = kernel[:, torch.from_numpy(rows[start : start + chunk])]
        part = part if len(columns) == width else part[:, :, torch.from_numpy(columns)]
        parts.append(torch.einsum("gokt,gk->got", part.double().cpu(), factor))
    return np.asarray(torch.cat(parts, 1).numpy()) if parts else np.zeros((groups, 0, taps))


def any_of(reaches: torch.Tensor, chosen: Bools, axis: int) -> Bools:
    """For every group, which positions of one axis meet a chosen one of the other (`axis`, 1: rows, 2: columns)."""
    if chosen.shape[0] == 1 and axis == 1:  # Whole rows are cheap to pick; columns of a row are not.
        reaches = reaches.index_select(1, torch.from_numpy(np.flatnonzero(chosen[0])))
    elif not chosen.all():
        reaches = reaches & torch.from_numpy(np.expand_dims(chosen, 3 - axis))
    if reaches.shape[axis] == 0:
        return np.zeros(reaches.shape[0] * reaches.shape[3 - axis], bool)
    # The largest byte is the same as `any`, and several times faster along rows.
    return np.asarray(reaches.view(torch.uint8).amax(axis).bool().reshape(-1).cpu().numpy())


@dataclass(frozen=True, eq=False)
class Selection:
    """Which blocks, rows and columns of a kernel stay. All active blocks keep equally many.

    Attributes:
        kept_in: groups x in/groups.
        kept_out: groups x out/groups.
        groups: the active ones.
        rows: active groups x kept rows.
        columns: active groups x kept columns.
    """

    kept_in: Bools
    kept_out: Bools
    groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, kept_in: Bools, kept_out: Bools) -> Selection:
        groups = np.flatnonzero(kept_out.any(1))
        rows, columns = (np.nonzero(kept[groups])[1].reshape(len(groups), -1) for kept in (kept_out, kept_in))
        return cls(kept_in, kept_out, groups, rows, columns)

    def apply(self, kernel: torch.Tensor) -> torch.Tensor:
        """The kept part of a groups x out/groups x in/groups x taps kernel."""
        groups, rows, columns = map(torch.from_numpy, (self.groups, self.rows, self.columns))
        if len(kernel) == 1:
            return kernel[0].index_select(0, rows[0]).index_select(1, columns[0])[None]
        return kernel[groups[:, None, None], rows[:, :, None], columns[:, None, :]]
