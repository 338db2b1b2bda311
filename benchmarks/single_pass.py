"""DNNShifter's own conversion, to compare ours with: one pass over the filters that are all zero.

Its code drops, once, every output filter of a convolution whose weights are all exactly zero, with what reads it. It does
not drop what then becomes dead in turn, never touches the outputs that a residual connection adds, and drops what a
normalisation's shift makes of such a filter, so that it is not lossless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx

from reconvene.frontend.graph_module import CapturedModule, cloned
from reconvene.passes.canonicalize import canonicalize
from reconvene.passes.dependency import DependencyView, dependency_view
from reconvene.passes.groups import ChannelGroup
from reconvene.passes.pruning.decisions import Decision, masks_of
from reconvene.passes.values import attribute

__all__ = ["SinglePass", "single_pass"]


@dataclass(frozen=True, eq=False)
class SinglePass:
    """What one pass removes."""

    channels: int
    parameters: int
    """That are left."""
    module: CapturedModule = field(repr=False)
    """The network that is computed after it: the dropped filters' biases and normalisation are zero, too."""


def single_pass(module: CapturedModule) -> SinglePass:
    """Removes all-zero filters the original way. `module` is left as it was."""
    view = dependency_view(canonicalize(module))
    decisions = [_decision(view, group) for group in view.groups]
    masks = masks_of(view, decisions)
    masked = cloned(module)
    with torch.no_grad():
        for name, mask in masks.items():
            masked.get_parameter(name).mul_(mask)
    return SinglePass(sum(int(d.drop.sum()) for d in decisions), _left(view, decisions), masked)


def _decision(view: DependencyView, group: ChannelGroup) -> Decision:
    """The channels that one convolution alone makes, with filters of zeros only. One channel always stays."""
    drop = np.zeros(group.size, bool)
    makers = [part for part in group.slices if part.role == "producer" and _tensor(view, part.parameter).dim() > 1]
    if group.prunable and len(makers) == 1 and _tensor(view, makers[0].parameter).dim() > 2:
        weight = _tensor(view, makers[0].parameter).movedim(makers[0].axis, 0).flatten(1)
        zero = (weight == 0).all(1).numpy()
        positions = makers[0].positions
        drop = np.array([bool(zero[row[row >= 0]].all()) for row in positions])
        if drop.all():
            drop[0] = False
    return Decision(group, int(drop.sum()), drop, ())


def _left(view: DependencyView, decisions: list[Decision]) -> int:
    """Parameters that stay when the dropped channels leave every tensor that has them, and nothing else goes."""
    kept: dict[str, dict[int, Tensor]] = {}
    for decision in decisions:
        for part in decision.group.slices:
            axes = kept.setdefault(part.parameter, {})
            size = _tensor(view, part.parameter).shape[part.axis]
            keep = axes.setdefault(part.axis, torch.ones(size, dtype=torch.bool))
            gone = part.positions[decision.drop]
            keep[torch.from_numpy(gone[gone >= 0])] = False
    return sum(_size(parameter, kept.get(name, {})) for name, parameter in _parameters(view.module).items())


def _size(parameter: Tensor, kept: Mapping[int, Tensor]) -> int:
    sizes = [int(kept[axis].sum()) if axis in kept else size for axis, size in enumerate(parameter.shape)]
    return int(np.prod(sizes))


def _parameters(module: fx.GraphModule) -> dict[str, Tensor]:
    return dict(module.named_parameters())


def _tensor(view: DependencyView, name: str) -> Tensor:
    found = attribute(view.module, name)
    assert isinstance(found, Tensor)
    return found.detach()
