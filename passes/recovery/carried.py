"""Weights by what a layer's outputs lose with each: what zeros of several layers cost can then be compared.

With x what a layer reads and y what it gives, zeroing the weight w of column i takes w x_i from an output. Where columns are
not correlated, the squared error of a layer relative to the variance of its outputs is the sum over its zeros of

    w^2 Var(x_i) / sum Var(y).

That is Wanda's score (Sun et al., 2024, "A simple and effective pruning approach for large language models", arXiv 2306.11695)
over the variance of the outputs, which makes it comparable between layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.graph_module import CapturedModule
from ..rules.kernel_blocks import blocks_of, stored_form
from .readers import Reader
from .ridge import Moments
from .sampling import sampled
from .walk import Walk

__all__ = ["carried"]

_ROWS = 1.0
"""Output positions that are drawn for every number that one reads: variances need few."""


def carried(
    dense: CapturedModule, readers: Mapping[fx.Node, Reader], calls: Sequence[tuple[Any, ...]], seed: int = 0
) -> dict[str, Tensor]:
    """Numbers whose squares are the errors above, by the name of the weight, as it is stored.

    Args:
        dense: the network.
        readers: the calls of its layers, in the order of the graph.
        calls: calibration inputs: the positional inputs of every call.
        seed: of the output positions that are drawn.
    """
    walk, generator = Walk(dense, calls), torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for node, reader in readers.items():
        walk.before(node)
        sources = walk.values(reader.layer.source)
        walk.past(node)
        halves = sampled(
            reader.op, reader.layer, (sources, walk.values(node)), _ROWS, generator, centred=reader.offset is not None
        )
        found[reader.name] = _of_layer(reader, halves[0] + halves[1])
    return found


def _of_layer(reader: Reader, moments: Moments) -> Tensor:
    old = blocks_of(reader.weight.detach(), reader.layer).flatten(2).double()
    if not moments.rows or not moments.finite:
        return relative(reader.weight.detach())
    covariance, _, variance = moments.covariances
    there = variance.sum().clamp_min(torch.finfo(variance.dtype).tiny)
    felt = old * covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()[:, None] / there.sqrt()
    return stored_form(felt.reshape(*old.shape[:2], -1, max(1, math.prod(reader.layer.taps))), reader.layer)


def relative(weight: Tensor) -> Tensor:
    """The same where nothing is known of what is read: as if all columns varied alike."""
    norm = weight.double().norm()
    return weight.double() / norm.clamp_min(torch.finfo(norm.dtype).tiny)
