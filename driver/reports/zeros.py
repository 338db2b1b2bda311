"""Zeros inside of layers as a report shows them: sums by structure, bytes by format, and masks as images."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import fx

from ...passes.outcome import LayerZeros
from ...passes.weight_views import weight_views

__all__ = ["StructureSum", "mask_pictures", "structure_sums", "total_storage"]

_MOST_ROWS, _MOST_COLUMNS = 128, 360
"""Of an image: its beginning is enough to see a structure, and pages of many layers stay small."""


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


def mask_pictures(module: fx.GraphModule, zeros: Sequence[LayerZeros]) -> dict[str, str]:
    """By the name of each weight that has zeros, the beginning of its mask as an image (a ``data:`` address of a PNG).

    One dot a weight, dark where it is not zero: a row a filter, and from left to right input channel by input channel the
    positions of its kernel.
    """
    wanted = {layer.name for layer in zeros if layer.zeros}
    views = [view for view in weight_views(module) if view.name in wanted]
    return {
        view.name: _png((view.seen(module.get_parameter(view.name).detach()) != 0).flatten(1).cpu().numpy())
        for view in views
    }


def _png(kept: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(~kept[:_MOST_ROWS, :_MOST_COLUMNS]).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
