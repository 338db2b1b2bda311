"""Moments of what a layer reads and is to give, from positions drawn of all calibration calls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..layers import Layer
from ..values import Operation, shape_of
from .patches import drawn_rows, rows_there
from .ridge import Moments

__all__ = ["MOST_COLUMNS", "columns_of", "sampled"]

MOST_COLUMNS = 12_288
"""Numbers that an output position may read: their Gram matrix then takes 1.2 GB."""
_LEAST_ROWS = 2_000
"""Of a layer whose outputs read few numbers."""


def columns_of(layer: Layer) -> int:
    """Numbers that one output position of a layer reads."""
    width: int = shape_of(layer.weight)[layer.in_axis]
    return (width // layer.groups if layer.transposed else width) * math.prod(layer.taps)


def sampled(
    op: Operation,
    layer: Layer,
    values: tuple[Sequence[Tensor], Sequence[Tensor]],
    rows: float,
    generator: torch.Generator,
    *,
    centred: bool = True,
) -> tuple[Moments, Moments]:
    """Moments over each half of the examples.

    Args:
        op: the call of the layer.
        layer: what the call is.
        values: what it reads, and what it is to give, in every calibration call.
        rows: output positions for every number that one reads, as far as there are so many.
        generator: draws the positions.
        centred: see `Moments`.
    """
    sources, aims = values
    there = sum(rows_there(layer, aim) for aim in aims)
    share = max(_LEAST_ROWS, rows * columns_of(layer)) / max(1, there)
    halves = Moments(layer.groups, centred), Moments(layer.groups, centred)
    for call, (source, aim) in enumerate(zip(sources, aims, strict=True)):
        for place, half in _halves(layer, source, call):
            wanted = math.ceil(share * rows_there(layer, aim[half]))
            for piece in drawn_rows(op, layer, source[half], aim[half], wanted, generator):
                halves[place].add(piece)
    return halves


def _halves(layer: Layer, value: Tensor, call: int) -> list[tuple[int, slice]]:
    """The examples of a call that belong to each half: by turns, or all to one where there is but one."""
    if layer.axis and len(value) > 1:
        return [(place, slice(place, None, 2)) for place in range(2)]
    return [(call % 2, slice(None))]
