"""Reconvene's pruning sensitivity evaluator: which convolutions an unstructured pruning found resilient.

A convolution whose weights went more often than the average is one the ranking could spare: it is resilient, and may
lose channels. The others are sensitive, and become dense again. No data and no training are needed.

What is public of the method says that layers are compared with "the global average sparsity", which can be read in two
ways; both are here. ``mean``: the unweighted mean over convolutions. ``global``: the share of all weights that went, which
large layers dominate. ``none`` is ours: every layer that lost weights is resilient, so that all densities count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ....frontend.base.errors import InputError
from ..weights import LayerSparsity

__all__ = ["THRESHOLDS", "Sensitivity", "evaluate", "shuffled"]

THRESHOLDS = ("mean", "global", "none")


@dataclass(frozen=True)
class Sensitivity:
    """What the evaluator found.

    Attributes:
        threshold: sparsity above which a layer is resilient.
        layers: the layers that were compared, in the order of the network.
    """

    threshold: float
    layers: tuple[LayerSparsity, ...]

    @property
    def resilient(self) -> tuple[str, ...]:
        """Names of the weights of resilient layers."""
        return tuple(layer.name for layer in self.layers if layer.sparsity > self.threshold)

    def pooled(self, names: Sequence[str]) -> float:
        """The sparsity of several layers taken together: zeros over weights."""
        chosen = [layer for layer in self.layers if layer.name in names]
        return sum(layer.zeros for layer in chosen) / sum(layer.weights for layer in chosen)


def evaluate(
    layers: Sequence[LayerSparsity], sparsity: float, threshold: str = "mean", *, convolutions_only: bool = True
) -> Sensitivity:
    """Compares every layer's sparsity with the average.

    Args:
        layers: what an unstructured pruning left, see `pruning.weights`.
        sparsity: the share it was asked for.
        threshold: ``mean`` over the layers compared, ``global``, the share asked for, or ``none``: 0.
        convolutions_only: linear layers are neither compared nor pruned.

    Raises:
        InputError: there is no such threshold, or no layer to compare.
    """
    if threshold not in THRESHOLDS:
        raise InputError(f"there is no threshold '{threshold}'; choose one of {', '.join(THRESHOLDS)}")
    chosen = tuple(layer for layer in layers if layer.convolution or not convolutions_only)
    if not chosen:
        raise InputError("this model has no convolution to evaluate; choose layers='all' to prune linear layers too")
    mean = sum(layer.sparsity for layer in chosen) / len(chosen)
    return Sensitivity({"mean": mean, "global": sparsity, "none": 0.0}[threshold], chosen)


def shuffled(found: Sensitivity, seed: int) -> Sensitivity:
    """The same sparsities dealt out to the layers at random: as many resilient layers, but other ones. An ablation."""
    order = np.random.default_rng(seed).permutation(len(found.layers))
    shares = [found.layers[place].sparsity for place in order]
    layers = tuple(
        replace(layer, zeros=round(share * layer.weights)) for layer, share in zip(found.layers, shares, strict=True)
    )
    return replace(found, layers=layers)
