"""Which zeros the weights of a graph have, and what they are worth in bytes: found from the weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from .outcome import LayerZeros
from .structures import Structure, recognise
from .values import attribute
from .weight_views import WeightView, weight_views

__all__ = ["zeros_of"]

_DENSE = 0.9
"""With a larger share of weights that are not zero, no format is asked for: all of them are larger than the dense one."""


def zeros_of(module: fx.GraphModule) -> tuple[LayerZeros, ...]:
    """The zeros of all convolutions, linear and recurrent layers of a canonical or compacted module, in order.

    Empty where no weight has a structure, so that networks without zeros have nothing to tell.
    """
    found = tuple(_zeros(module, view) for view in weight_views(module))
    return found if any(layer.structure for layer in found) else ()


def _zeros(module: fx.GraphModule, view: WeightView) -> LayerZeros:
    stored: Tensor = attribute(module, view.name).detach()
    weight = view.seen(stored)
    zeros = weight.numel() - int(weight.count_nonzero())
    structure = None if view.unlike else recognise(weight)
    return LayerZeros(
        view.name,
        tuple(stored.shape),
        weight.numel(),
        zeros,
        None if structure is None else str(structure),
        _storage(structure, weight, zeros),
    )


def _storage(structure: Structure | None, weight: Tensor, zeros: int) -> dict[str, int]:
    if structure is None or (zeros < (1 - _DENSE) * weight.numel() and not structure.changes_values):
        return {"dense": weight.numel() * weight.element_size()}
    with torch.no_grad():
        return dict(structure.storage(weight))
