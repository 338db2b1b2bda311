"""Structured pruning inside layers: the units of the lowest scores go, the share by layer or over the network."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from ...frontend.base.progress import track
from ..canonicalize import canonicalize
from ..masks import check_finite, masked_tensors, replace_tensors
from ..outcome import LayerZeros
from ..structures import Structure
from ..values import attribute
from ..weight_views import WeightView, weight_views, with_other_names
from .decisions import check_sparsity
from .scores import Evidence, Request, Score, Weight, check_scores, score_for
from .structure_rules import Choice, StructureRule, choose
from .weights import SCHEDULES

__all__ = [
    "Ranked",
    "Structured",
    "fitted",
    "shares_of_layers",
    "shares_of_network",
    "structured_masks",
    "with_choices",
]


@dataclass(frozen=True)
class Ranked:
    """How units of weights are ranked.

    Attributes:
        score: of `pruning.scores.SCORES` by name, or itself; a unit's is the sum of its weights'.
        squared: whether scores are absolute weights, and what is kept is to be the nearest by the Euclidean norm.
        sparsity: share of the weights that go, of the layers that have no share of their own and take a structure which does
            not say it itself.
        scope: ``layer``: of every layer; ``global``: of all of them, by the mean score of a unit's weights.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave dense.
    """

    score: str | Score = "magnitude"
    squared: bool = True
    sparsity: float = 0.5
    scope: str = "layer"
    ignore: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Structured:
    """What goes inside of layers. The model is as it was."""

    module: fx.GraphModule = field(repr=False)
    """Its canonical form."""
    choices: tuple[Choice, ...]
    """Of every weight that could take a structure."""
    masks: Mapping[str, Tensor] = field(repr=False)
    """By parameter name, boolean, of the parameter's shape, True to keep."""
    values: Mapping[str, Tensor] = field(repr=False)
    """Weights of which those that stay change too."""

    def masked_module(self, module: fx.GraphModule) -> fx.GraphModule:
        """`module`, or where values change its canonical form with the new ones. The masks are for either."""
        if not self.values:
            return module
        parameters = {
            name: nn.Parameter(value, attribute(self.module, name).requires_grad) for name, value in self.values.items()
        }
        stored = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
        before = masked_tensors(module, {name: mask for name, mask in self.masks.items() if name in stored})
        after = masked_tensors(self.module, {name: mask for name, mask in self.masks.items() if name not in stored})
        changed = canonicalize(module, before | after | parameters)
        replace_tensors(changed, parameters)  # Those that are computed from a tensor of the same name, too.
        return changed

    def without(self, names: Collection[str], reason: str) -> Structured:
        """The same with these weights dense, which is told with a reason."""
        choices = tuple(
            replace(choice, structure=None, share=None, reason=reason) if choice.view.name in names else choice
            for choice in self.choices
        )
        masks = {name: mask for name, mask in self.masks.items() if name not in names}
        values = {name: value for name, value in self.values.items() if name not in names}
        return replace(self, choices=choices, masks=masks, values=values)

    @property
    def refusals(self) -> tuple[str, ...]:
        """One line for every weight that nothing which was asked for fits."""
        return tuple(f"{choice.view.name} stays dense: {choice.reason}" for choice in self.choices if choice.refused)


def structured_masks(
    module: fx.GraphModule, evidence: Evidence, rules: Sequence[StructureRule], ranked: Ranked
) -> Structured:
    """Masks that give every layer the structure that the rules say.

    A score that its authors spread over rounds is computed anew on what is left, the share growing exponentially.

    Raises:
        InputError: an option is out of range, data are missing, a pattern matches nothing, or no layer takes a structure.
    """
    chosen = score_for(ranked.score, evidence)
    check_sparsity(ranked.sparsity)
    canonical = canonicalize(module)
    check_finite(canonical)
    choices = choose(with_other_names(weight_views(canonical), module), rules, ranked.ignore)
    taken = {choice.view: choice.structure for choice in choices if choice.structure is not None}
    own = {choice.view: choice.share for choice in choices if choice.share is not None}
    weights = tuple(Weight(view.name, tuple(attribute(canonical, view.name).shape), view.convolution) for view in taken)
    generator = torch.Generator().manual_seed(evidence.seed)
    masks: dict[str, Tensor] = {}
    grown = SCHEDULES["exponential"]
    for number in track(range(1, chosen.rounds + 1), f"scoring weights by {chosen.name}"):
        found = chosen.weigh(Request(canonical, weights, evidence, masks, generator))
        check_scores(chosen.name, found)
        scores = {view: _ranked(view, found[view.name].detach(), masks, taken[view], ranked) for view in taken}
        if number == 1:
            taken = fitted(taken, scores)
        said = {view: grown(share, number / chosen.rounds) for view, share in own.items()}
        share = grown(ranked.sparsity, number / chosen.rounds)
        shares = shares_of_layers(taken, scores, share, ranked.scope, said)
        kept = {view.name: view.stored(structure.mask(scores[view], shares[view])) for view, structure in taken.items()}
        masks = {name: mask & masks[name] if name in masks else mask for name, mask in kept.items()}
    values = {
        view.name: view.stored(_applied(structure, view, canonical, masks))
        for view, structure in taken.items()
        if structure.changes_values
    }
    done = tuple(replace(choice, structure=taken.get(choice.view)) for choice in choices)
    return Structured(canonical, done, masks, values)


def with_choices(zeros: Sequence[LayerZeros], choices: Sequence[Choice]) -> tuple[LayerZeros, ...]:
    """What was found, with what each weight was given or why it was left dense."""
    chosen = {choice.view.name: choice for choice in choices}
    return tuple(
        replace(layer, asked=choice.told, reason=choice.reason) if (choice := chosen.get(layer.name)) else layer
        for layer in zeros
    )


def _ranked(
    view: WeightView, scores: Tensor, masks: Mapping[str, Tensor], structure: Structure, ranked: Ranked
) -> Tensor:
    """Scores as the structure sees them, of what is gone below all others; in float64, so that their sums are finite."""
    seen = view.seen(scores).double()
    if ranked.squared:
        seen = structure.energy(seen)
    if view.name in masks:
        seen = seen.masked_fill(~view.seen(masks[view.name]), -1 - float(seen.abs().sum()))
    return seen


def fitted(taken: Mapping[WeightView, Structure], scores: Mapping[WeightView, Tensor]) -> dict[WeightView, Structure]:
    """Structures with what they choose once for all the layers that take them."""
    fitted = {
        structure: structure.fitted([scores[view] for view, other in taken.items() if other == structure])
        for structure in dict.fromkeys(taken.values())
    }
    return {view: fitted[structure] for view, structure in taken.items()}


def shares_of_layers(
    taken: Mapping[WeightView, Structure],
    scores: Mapping[WeightView, Tensor],
    sparsity: float,
    scope: str,
    own: Mapping[WeightView, float],
) -> dict[WeightView, float]:
    """The share of zeros of every layer: what its structure says itself, its `own`, or else by the general `sparsity`, in every
    layer or with the scope ``global`` by rank over all that are left.
    """
    fixed = {view: structure.fixed_sparsity for view, structure in taken.items()}
    said = {view: own.get(view) if share is None else share for view, share in fixed.items()}
    free = {view: structure for view, structure in taken.items() if said[view] is None}
    ranked = shares_of_network(free, scores, sparsity) if scope == "global" else dict.fromkeys(free, sparsity)
    return {view: ranked[view] if share is None else share for view, share in said.items()}


def shares_of_network(
    taken: Mapping[WeightView, Structure], scores: Mapping[WeightView, Tensor], sparsity: float
) -> dict[WeightView, float]:
    """The share of zeros of every layer if the units of all layers are ranked together.

    A unit's rank is its score by the number of its weights, and as many stay as there is room for: the share that is kept of
    all weights. One unit of each layer always stays.
    """
    if not taken:
        return {}
    views = tuple(taken)
    means, sizes, owners = [], [], []
    for place, view in enumerate(views):
        size = taken[view].unit_weights(view.shape)
        units = taken[view].unit_scores(scores[view]).reshape(-1).double() / size
        means.append(units)
        sizes.append(torch.full_like(units, size))
        owners.append(torch.full_like(units, place, dtype=torch.int64))
    order = torch.cat(means).argsort(descending=True, stable=True)
    room = (1 - sparsity) * math.fsum(view.shape.weights for view in views)
    stays = order[torch.cat(sizes)[order].cumsum(0) <= room + 0.5]
    kept = torch.cat(owners)[stays].bincount(minlength=len(views)).tolist()
    shares = {}
    for place, view in enumerate(views):
        share = max(1, kept[place]) * taken[view].unit_weights(view.shape) / view.shape.weights
        shares[view] = max(0.0, 1 - share)
    return shares


def _applied(structure: Structure, view: WeightView, module: fx.GraphModule, masks: Mapping[str, Tensor]) -> Tensor:
    weight: Tensor = attribute(module, view.name).detach()
    return structure.applied(view.seen(weight), view.seen(masks[view.name]))
