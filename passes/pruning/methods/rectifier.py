"""Reconvene's resilient layer rectifier, first half: how many channels of which layers go, and which ones.

A resilient convolution of sparsity s keeps (1 - s) of its channels. Layers whose channels are added or otherwise tied
together are one unit, with the zeros and weights of all its convolutions taken together; or they are left whole.
`reinitialization` is the second half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ....frontend.base.errors import InputError
from ...dependency import DependencyView
from ...groups import ChannelGroup
from ...values import attribute
from ..channel_scores import summed_scores
from ..decisions import AS_WANTED, Decision, Widths, check_patterns, ignored_by, rounded
from .sensitivity import Sensitivity

__all__ = ["CHANNELS", "RESIDUAL", "rectify"]

RESIDUAL = ("groups", "inside")
CHANNELS = ("lowest", "random")


def rectify(
    view: DependencyView,
    sensitivity: Sensitivity,
    scores: Mapping[str, Tensor],
    widths: Widths = AS_WANTED,
    *,
    residual: str = "groups",
    channels: str = "lowest",
    seed: int = 0,
) -> tuple[Decision, ...]:
    """One decision for every group of the view.

    Args:
        view: of the dense model.
        sensitivity: what the evaluator found for it.
        scores: of weights, by name; those that were pruned should have zeros.
        widths: what the layers' widths are rounded to, and which are left alone; the sensitivity has the shares, so that the
            scope has no meaning.
        residual: ``groups``: layers that share channels lose them together; ``inside``: they lose none.
        channels: those of ``lowest`` score go, or ``random`` ones.
        seed: of random channels.

    Raises:
        InputError: an option is unknown, or a pattern matches nothing.
    """
    for name, value, known in (("residual", residual, RESIDUAL), ("channels", channels, CHANNELS)):
        if value not in known:
            raise InputError(f"there is no choice '{value}' of {name}; choose one of {', '.join(known)}")
    check_patterns(view, widths.ignore)
    generator = np.random.default_rng(seed)
    decisions = []
    for group in view.groups:
        reason = _untouched(view, group, sensitivity, residual, widths.ignore)
        if reason is not None:
            decisions.append(Decision(group, 0, np.zeros(group.size, bool), (reason,)))
            continue
        wanted = group.size - max(1, round((1 - sensitivity.pooled(_makers(view, group))) * group.size))
        score = summed_scores(group, scores) if channels == "lowest" else generator.random(group.size)
        decisions.append(rounded(group, score, wanted, widths))
    return tuple(decisions)


def _untouched(
    view: DependencyView, group: ChannelGroup, sensitivity: Sensitivity, residual: str, ignore: Sequence[str]
) -> str | None:
    """Why a group loses nothing, or None if it shall."""
    makers = _makers(view, group)
    compared = {layer.name for layer in sensitivity.layers}
    pattern = ignored_by(group, ignore)
    if group.reason:
        return group.reason
    if pattern:
        return f"left alone by '{pattern}'"
    if group.size == 1:
        return "only one channel"
    if not compared.issuperset(makers):
        return "made by a layer that the evaluator does not compare"
    mixing = [name for name in makers if not _depthwise(view, name)]
    if residual == "inside" and len(mixing) > 1:
        return f"{len(mixing)} layers share these channels"
    if sensitivity.pooled(makers) <= sensitivity.threshold:
        return "sensitive: no sparser than the average"
    return None


def _makers(view: DependencyView, group: ChannelGroup) -> tuple[str, ...]:
    """The weights that make the group's channels; biases and normalisation follow them."""
    made = (part.parameter for part in group.slices if part.role == "producer")
    return tuple(dict.fromkeys(name for name in made if attribute(view.module, name).dim() > 1))


def _depthwise(view: DependencyView, name: str) -> bool:
    """A weight that hands every channel on by itself; it ties its channels to one layer, not to another branch."""
    return any(layer.depthwise for layer in view.layers.get(name, ()))
