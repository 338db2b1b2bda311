"""Layers whose weights are equal know it: the steps of a recurrent layer, and layers that a model calls again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .nodes import Array, Convolution, Graph, Weights

__all__ = ["sample", "share_weights"]

_SAMPLED = 256
"""Elements that tell weights apart before all are compared."""


def share_weights(graph: Graph) -> int:
    """Gives convolutions of equal weights the same ones; returns how many there were that were others'."""
    known: dict[tuple[tuple[int, ...], bytes, bytes], list[Weights]] = {}
    shared = 0
    for node in graph.nodes:
        if node.op != "convolution":
            continue
        convolution = node.detail_as(Convolution)
        weights = convolution.weights
        alike = known.setdefault((weights.kernel.shape, sample(weights.kernel), sample(weights.bias)), [])
        same = next((other for other in alike if _equal(other, weights)), None)
        if same is None:
            alike.append(weights)
        elif same is not weights:
            node.detail = replace(convolution, weights=same)
            shared += 1
    return shared


def sample(array: Array) -> bytes:
    """What tells most arrays of a size apart; those that are alike have to be compared."""
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // _SAMPLED)].tobytes()


def _equal(one: Weights, other: Weights) -> bool:
    return np.array_equal(one.kernel, other.kernel) and np.array_equal(one.bias, other.bias)
