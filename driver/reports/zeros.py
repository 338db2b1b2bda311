"""Zeros inside of layers as a report shows them: sums by structure, bytes by format, and masks as images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import fx

from ...passes.outcome import LayerZeros
from ...passes.weight_views import weight_views

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MaskPicture", "StructureSum", "mask_pictures", "structure_sums", "total_storage"]

Bools = npt.NDArray[np.bool_]

_MOST_ROWS, _MOST_COLUMNS = 128, 360
"""Dots of an image of single weights."""
_MOST_CELLS = (64, 180)
"""Of an image of densities."""
_LEVELS = 16
"""Of grey, so that two cells fit a byte: with all these bounds the images of a weight, as text, are below 17 kB."""


@dataclass(frozen=True)
class MaskPicture:
    """The mask of one weight as images, each the ``data:`` address of a PNG. Rows are filters; from left to right are input
    channel by input channel the positions of its kernel.

    Attributes:
        dots: one dot a weight, dark where it is not zero; of a large weight the beginning.
        cells: of a large weight all of it, one dot for a block of weights, the darker the more are not zero.
        cell: weights of such a block, down and across.
        densest: the share of weights that are not zero in the darkest block.
    """

    dots: str
    cells: str | None = None
    cell: tuple[int, int] = (1, 1)
    densest: float = 1.0


@dataclass(frozen=True)
class StructureSum:
    """All layers of one structure together; ``dense`` for those that have none."""

    structure: str
    layers: int
    weights: int
    zeros: int
    dense_bytes: int
    bytes: int
    """In the smallest format of every layer."""


def structure_sums(zeros: Sequence[LayerZeros]) -> tuple[StructureSum, ...]:
    """One sum for every structure that was found, in the order of the layers."""
    names = list(dict.fromkeys(layer.structure or "dense" for layer in zeros))
    chosen = {name: [layer for layer in zeros if (layer.structure or "dense") == name] for name in names}
    return tuple(
        StructureSum(
            name,
            len(layers),
            sum(layer.weights for layer in layers),
            sum(layer.zeros for layer in layers),
            sum(layer.storage["dense"] for layer in layers),
            sum(min(layer.storage.values()) for layer in layers),
        )
        for name, layers in chosen.items()
    )


def total_storage(zeros: Sequence[LayerZeros]) -> Mapping[str, int]:
    """Bytes of all layers together: ``dense``, ``csr`` where a layer has zeros, and ``smallest``, each in its best format."""
    return {
        "dense": sum(layer.storage["dense"] for layer in zeros),
        "csr": sum(layer.storage.get("csr", layer.storage["dense"]) for layer in zeros),
        "smallest": sum(min(layer.storage.values()) for layer in zeros),
    }


def mask_pictures(module: fx.GraphModule, zeros: Sequence[LayerZeros]) -> dict[str, MaskPicture]:
    """By the name of each weight that has zeros, its mask as images. `module` is canonical."""
    wanted = {layer.name for layer in zeros if layer.zeros}
    views = [view for view in weight_views(module) if view.name in wanted]
    return {
        view.name: _picture((view.seen(module.get_parameter(view.name).detach()) != 0).flatten(1).cpu().numpy())
        for view in views
    }


def _picture(kept: Bools) -> MaskPicture:
    from PIL import Image as images

    dots = _png(images.fromarray(~kept[:_MOST_ROWS, :_MOST_COLUMNS]))
    if kept.shape[0] <= _MOST_ROWS and kept.shape[1] <= _MOST_COLUMNS:
        return MaskPicture(dots)
    cell = -(-kept.shape[0] // _MOST_CELLS[0]), -(-kept.shape[1] // _MOST_CELLS[1])
    densities = _densities(kept, cell)
    densest = float(densities.max())
    levels = (_LEVELS - 1) * (1 - densities / max(densest, 1e-9))
    grey = images.fromarray(np.rint(levels).astype("uint8"), "P")
    grey.putpalette([255 * level // (_LEVELS - 1) for level in range(_LEVELS) for _ in "rgb"])
    return MaskPicture(dots, _png(grey, bits=4), cell, densest)


def _densities(kept: Bools, cell: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The share of True in every block of so many rows and columns; the last ones may be smaller."""
    rows, columns = (np.arange(0, size, step) for size, step in zip(kept.shape, cell, strict=True))
    sums = np.add.reduceat(np.add.reduceat(kept.astype("int64"), rows, axis=0), columns, axis=1)
    heights, widths = np.diff([*rows, kept.shape[0]]), np.diff([*columns, kept.shape[1]])
    found: npt.NDArray[np.float64] = sums / np.outer(heights, widths)
    return found


def _png(image: Image, **options: int) -> str:
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
