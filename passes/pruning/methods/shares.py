"""How large a share of its channels a group keeps, from how many weights an unstructured pruning left in its layers.

A layer between two groups that keep the shares u and v keeps u v of its weights. So "as many channels as weights", the
share (1 - s) on either side of a layer of sparsity s, leaves (1 - s)^2 of them: 1 % where unstructured pruning left 10 %.
``channels`` is that reading, and ``density`` the one that leaves (1 - s).

With x the logarithms of the shares, the densities d are met where for every layer l

    sum over groups g of a_lg x_g = log d_l

a_lg being how much of the layer's input and output axes the group makes up: 1 for a group that is a whole axis, 2 for
one that is both, less for a part of a concatenation (there to first order). A chain of layers has one group more than
equations can tell apart, and exact solutions of it alternate between narrow and wide. So every layer also asks each of
its groups for an equal part of log d_l, sqrt(d_l) where both of its sides may lose channels, d_l where only one may; and the
answer is the least-squares solution of both kinds of equations, each weighted by the layer's number of weights, with no share
above 1. Where neighbours have equal densities it meets them all; layers that are tied together, as by residual additions,
settle on one width for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from scipy.optimize import lsq_linear

from ...dependency import DependencyView
from ...groups import ChannelGroup
from ...values import attribute
from ..weights import LayerSparsity
from .sensitivity import Sensitivity

__all__ = ["KEEP", "makers"]


def makers(view: DependencyView, group: ChannelGroup) -> tuple[str, ...]:
    """The weights that make the group's channels; biases and normalisation follow them."""
    made = (part.parameter for part in group.slices if part.role == "producer")
    return tuple(dict.fromkeys(name for name in made if attribute(view.module, name).dim() > 1))


def by_channels(
    view: DependencyView, groups: Sequence[ChannelGroup], sensitivity: Sensitivity
) -> dict[ChannelGroup, float]:
    """(1 - s), with s the sparsity of all layers that make the group, taken together."""
    return {group: 1 - sensitivity.pooled(makers(view, group)) for group in groups}


def by_density(
    view: DependencyView, groups: Sequence[ChannelGroup], sensitivity: Sensitivity
) -> dict[ChannelGroup, float]:
    """Shares at which every layer keeps as much of its weights as the unstructured pruning left in it, as near as can be."""
    rows, wanted = [], []
    for layer in sensitivity.layers:
        parts = _parts(view, groups, layer)
        if not parts.any():
            continue
        weight, density = math.sqrt(layer.weights), math.log(max(1 - layer.sparsity, 1 / layer.weights))
        rows.append(weight * parts)
        wanted.append(weight * density)
        for place in np.flatnonzero(parts):
            rows.append(weight * math.sqrt(parts[place]) * np.eye(len(groups))[place])
            wanted.append(weight * math.sqrt(parts[place]) * density / parts.sum())
    if not rows:
        return {}
    least = np.log([1 / group.size for group in groups])
    found = lsq_linear(np.array(rows), np.array(wanted), (least, 1e-12), method="bvls").x
    return {group: min(1.0, math.exp(x)) for group, x in zip(groups, found, strict=True)}


def _parts(view: DependencyView, groups: Sequence[ChannelGroup], layer: LayerSparsity) -> np.ndarray:
    """How much of the layer's axes each group makes up, both axes added: 0 to 2."""
    shape = attribute(view.module, layer.name).shape
    found = np.zeros(len(groups))
    for place, group in enumerate(groups):
        for part in group.slices:
            if part.parameter == layer.name:
                found[place] += np.unique(part.positions[part.positions >= 0]).size / shape[part.axis]
    return found


Shares = Callable[[DependencyView, Sequence[ChannelGroup], Sensitivity], dict[ChannelGroup, float]]
KEEP: Mapping[str, Shares] = MappingProxyType({"density": by_density, "channels": by_channels})
"""By name, what gives the groups that lose channels the shares that stay; each layer that makes them is in the sensitivity."""
