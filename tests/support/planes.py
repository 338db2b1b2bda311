"""Layers with zeros, images in planes as kernels take them, and a judge that wants all of a network there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from reconvene.backends.kernels.base import Spec
from reconvene.backends.kernels.image import View
from reconvene.backends.kernels.planes import is_planes

__all__ = ["InPlanes", "laid_out", "read_back", "zeros_in_rows"]


def zeros_in_rows(module: nn.Module, share: float, rows: int, seed: int = 0) -> nn.Module:
    """`module` with that share of each weight zero, at the same places in `rows` neighbouring filters; biases keep theirs."""
    random = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight.data
            kept = torch.rand(-(-len(weight) // rows), *weight.shape[1:], generator=random) >= share
            weight *= kept.repeat_interleave(rows, 0)[: len(weight)]
    return module


def laid_out(image: np.ndarray, view: View) -> np.ndarray:
    """``(N, C, H, W)`` in planes: zeros in the border, and where nobody may look, NaN."""
    buffer = np.full(view.size, np.nan, "float32")
    for n, planes in enumerate(image):
        for c, plane in enumerate(planes):
            first = view.offset(n, c, 0, 0)
            last = first + (view.height - 1) * view.row + view.width
            if view.halo:
                around = view.halo * (view.row + 1)
                buffer[first - around : last + around] = 0
            for y, row in enumerate(plane):
                buffer[first + y * view.row : first + y * view.row + view.width] = row
    return buffer


def read_back(buffer: np.ndarray, view: View, channels: int) -> np.ndarray:
    """What a kernel wrote in planes as ``(N, C, H, W)``. Its border has to be zeros, between the rows and around them."""
    found = np.empty((view.batch, channels, view.height, view.width), "float32")
    for n in range(view.batch):
        for c in range(channels):
            first, around = view.offset(n, c, 0, 0), view.halo * (view.row + 1)
            last = first + (view.height - 1) * view.row + view.width
            written = buffer[first - around : last + around].copy()
            for y in range(view.height):
                row = slice(around + y * view.row, around + y * view.row + view.width)
                found[n, c, y] = written[row]
                written[row] = 0
            if view.halo:
                assert not written[: around - view.halo].any() and not written[len(written) - around :].any()
                gaps = written[around : len(written) - around]
                columns = np.arange(len(gaps)) % view.row
                near = (columns < view.width + view.halo) | (columns >= view.row - view.halo)
                assert not gaps[near].any()
    return found


class InPlanes:
    """Costs by which everything that can lies in planes, computed by the first candidate there."""

    def __call__(self, layers: Sequence[Sequence[Spec]]) -> list[list[float]]:
        return [[number + (0.0 if self._in_planes(spec) else 1e6) for number, spec in enumerate(row)] for row in layers]

    def _in_planes(self, spec: Spec) -> bool:
        views = [view for view in vars(spec).values() if isinstance(view, View)]
        return bool(views) and is_planes(views[-1])
