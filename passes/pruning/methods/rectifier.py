"""Reconvene's resilient layer rectifier, first half: how many channels of which layers go, and which ones.

Resilient convolutions lose channels, how many `shares` says. Layers whose channels are added or otherwise tied together are
one unit, with the zeros and weights of all its convolutions taken together; or they are left whole. `reinitialization` is
the second half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, fx

from ....frontend.base.errors import InputError
from ...dependency import DependencyView
from ...groups import ChannelGroup
from ...rules import layer_of
from ..channel_scores import summed_scores
from ..decisions import AS_WANTED, Decision, Widths, check_patterns, ignored_by, rounded
from .sensitivity import Sensitivity
from .shares import KEEP, makers

__all__ = ["Rectifier", "first_layers", "last_layers", "rectify"]

_CHOICES = {
    "keep": tuple(KEEP),
    "ends": ("whole", "pruned"),
    "residual": ("groups", "inside"),
    "channels": ("lowest", "random"),
}


@dataclass(frozen=True)
class Rectifier:
    """What the paper leaves open of it.

    Attributes:
        keep: of a resilient layer of sparsity s, ``density``: channels such that about (1 - s) of its weights stay;
            ``channels``: (1 - s) of its channels.
        ends: ``whole``: the network's first convolutions lose no channels, and its last layers have no say in how many stay
            of what they read; ``pruned``: both are as others are. The answer keeps all of its channels in any case.
        residual: ``groups``: layers that share channels lose them together; ``inside``: they lose none.
        channels: those of ``lowest`` score go, or ``random`` ones.

    Raises:
        InputError: one of them is none of its choices.
    """

    keep: str = "density"
    ends: str = "whole"
    residual: str = "groups"
    channels: str = "lowest"

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"there is no {name} '{getattr(self, name)}'; choose one of {', '.join(known)}")


def rectify(
    view: DependencyView,
    sensitivity: Sensitivity,
    scores: Mapping[str, Tensor],
    rectifier: Rectifier = Rectifier(),
    widths: Widths = AS_WANTED,
    seed: int = 0,
) -> tuple[Decision, ...]:
    """One decision for every group of the view.

    Args:
        view: of the dense model.
        sensitivity: what the evaluator found for it.
        scores: of weights, by name; those that were pruned should have zeros.
        rectifier: the choices.
        widths: what the layers' widths are rounded to, and which are left alone; the sensitivity has the shares, so that the
            scope has no meaning.
        seed: of random channels.

    Raises:
        InputError: a pattern matches nothing.
    """
    check_patterns(view, widths.ignore)
    whole = first_layers(view) if rectifier.ends == "whole" else frozenset()
    last = last_layers(view) if rectifier.ends == "whole" else frozenset()
    reasons = {
        group: _untouched(view, group, sensitivity, rectifier.residual, whole, widths.ignore) for group in view.groups
    }
    counted = replace(sensitivity, layers=tuple(layer for layer in sensitivity.layers if layer.name not in last))
    shares = KEEP[rectifier.keep](view, [group for group in view.groups if reasons[group] is None], counted)
    generator = np.random.default_rng(seed)
    decisions = []
    for group in view.groups:
        if (reason := reasons[group]) is not None:
            decisions.append(Decision(group, 0, np.zeros(group.size, bool), (reason,)))
            continue
        wanted = group.size - max(1, round(shares[group] * group.size))
        lowest = rectifier.channels == "lowest"
        score = summed_scores(group, scores) if lowest else generator.random(group.size)
        decisions.append(rounded(group, score, wanted, widths))
    return tuple(decisions)


def first_layers(view: DependencyView) -> frozenset[str]:
    """Weights of convolutions to whose input no other convolution or linear layer has contributed."""
    found = _reached_by_no_other(view, view.module.graph.nodes, lambda node: node.all_input_nodes)
    return frozenset(name for name in found if any(layer.convolution for layer in view.layers.get(name, ())))


def last_layers(view: DependencyView) -> frozenset[str]:
    """Weights of convolutions and linear layers whose output no other such layer reads, at any distance."""
    return _reached_by_no_other(view, reversed(view.module.graph.nodes), lambda node: list(node.users))


def _reached_by_no_other(
    view: DependencyView, nodes: Iterable[fx.Node], neighbours: Callable[[fx.Node], Sequence[fx.Node]]
) -> frozenset[str]:
    """Weights of the layers that are met before any other in the order of `nodes`, `neighbours` being where they come from."""
    reached, found = set[fx.Node](), set[str]()
    for node in nodes:
        operation = view.operations.get(node)
        layer = operation and layer_of(operation)
        if any(other in reached for other in neighbours(node)):
            reached.add(node)
        elif layer:
            found.add(str(layer.weight.target))
            reached.add(node)
    return frozenset(found)


def _untouched(
    view: DependencyView,
    group: ChannelGroup,
    sensitivity: Sensitivity,
    residual: str,
    whole: frozenset[str],
    ignore: Sequence[str],
) -> str | None:
    """Why a group loses nothing, or None if it shall."""
    made = makers(view, group)
    compared = {layer.name for layer in sensitivity.layers}
    pattern = ignored_by(group, ignore)
    if group.reason:
        return group.reason
    if pattern:
        return f"left alone by '{pattern}'"
    if group.size == 1:
        return "only one channel"
    if not compared.issuperset(made):
        return "made by a layer that the evaluator does not compare"
    if not whole.isdisjoint(made):
        return "made by the network's first convolution, which stays whole"
    mixing = [name for name in made if not _depthwise(view, name)]
    if residual == "inside" and len(mixing) > 1:
        return f"{len(mixing)} layers share these channels"
    if sensitivity.pooled(made) <= sensitivity.threshold:
        return "sensitive: no sparser than the average"
    return None


def _depthwise(view: DependencyView, name: str) -> bool:
    """A weight that hands every channel on by itself; it ties its channels to one layer, not to another branch."""
    return any(layer.depthwise for layer in view.layers.get(name, ()))
