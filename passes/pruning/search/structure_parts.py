"""Units of a structure inside layers, as an allocation sees them: how many of its units each layer loses.

The same search that allots channels then allots the share of zeros of a layer: of its row blocks or kernels with patterns;
or how many of M channels it keeps, where a structure says its share itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, fx

from ...canonicalize import canonicalize
from ...masks import check_finite
from ...structures import NOfM, Structure
from ...values import attribute
from ...weight_views import WeightView, weight_views, with_other_names
from ..scores import Evidence, Request, Weight, check_scores, score_for
from ..structure_rules import StructureRule, choose
from ..structured import fitted
from .counts import Counts
from .parts import Part

__all__ = ["StructureParts", "pruned_share", "structure_parts"]


@dataclass(frozen=True, eq=False)
class StructureParts:
    """The weights of a network that take a structure.

    Attributes:
        taken: the structure of each, by the weight.
        scores: of single weights, seen as structures see them.
    """

    taken: Mapping[WeightView, Structure]
    scores: Mapping[WeightView, Tensor] = field(repr=False)

    def parts(self) -> tuple[Part, ...]:
        """One for every weight; the price of a unit is the weights in it."""
        return tuple(self._part(view, structure) for view, structure in self.taken.items())

    def _part(self, view: WeightView, structure: Structure) -> Part:
        if isinstance(structure, NOfM):
            return Part(view.name, structure.m, structure.m - 1, max(1, view.shape.weights // structure.m))
        units = structure.unit_scores(self.scores[view]).numel()
        return Part(view.name, units, units - 1, structure.unit_weights(view.shape))

    def structures(self, counts: Counts) -> dict[WeightView, tuple[Structure, float] | None]:
        """What each weight becomes, and with which share of zeros; None for one that stays dense."""
        pairs = zip(self.taken.items(), counts, strict=True)
        return {view: self._after(view, structure, count) for (view, structure), count in pairs}

    def spelled(self, counts: Counts) -> dict[str, str]:
        """The same as methods take it: by the weight's name a structure with its share, such as ``row-block:4@0.8``."""
        return {
            view.name: str(structure) if isinstance(structure, NOfM) else f"{structure}@{share:.6f}"
            for view, after in self.structures(counts).items()
            if after is not None
            for structure, share in [after]
        }

    def masks(self, counts: Counts) -> dict[str, Tensor]:
        """Masks by parameter name, boolean, of the parameter's shape, True to keep; of the weights that lose something."""
        found = {}
        for view, after in self.structures(counts).items():
            if after is not None:
                structure, share = after
                found[view.name] = view.stored(structure.mask(self.scores[view], share))
        return found

    def _after(self, view: WeightView, structure: Structure, count: int) -> tuple[Structure, float] | None:
        if isinstance(structure, NOfM):
            return (replace(structure, n=structure.m - count), count / structure.m) if count else None
        units, weights = structure.unit_scores(self.scores[view]).numel(), structure.unit_weights(view.shape)
        # Where units do not cover a layer, as patterns of 4 of 9 do not, it has zeros before any unit goes.
        share = 1 - (units - count) * weights / view.shape.weights
        return (structure, max(0.0, share)) if share > 0 else None


def structure_parts(
    module: fx.GraphModule,
    evidence: Evidence,
    rules: Sequence[StructureRule],
    score: str = "magnitude",
    ignore: tuple[str, ...] = (),
) -> StructureParts:
    """The weights of a captured module that take a structure by `rules`, with scores as `structured_masks` ranks by them.

    Raises:
        InputError: data are missing for the score, a pattern matches nothing, or no layer takes a structure.
    """
    chosen = score_for(score, evidence)
    canonical = canonicalize(module)
    check_finite(canonical)
    taken = {
        choice.view: choice.structure
        for choice in choose(with_other_names(weight_views(canonical), module), rules, ignore)
        if choice.structure is not None
    }
    weights = tuple(Weight(view.name, tuple(attribute(canonical, view.name).shape), view.convolution) for view in taken)
    found = chosen.weigh(Request(canonical, weights, evidence))
    check_scores(score, found)
    seen = {view: view.seen(found[view.name].detach()) for view in taken}
    if score == "magnitude":  # What is kept is to be the nearest by the Euclidean norm.
        seen = {view: structure.energy(seen[view]) for view, structure in taken.items()}
    return StructureParts(fitted(taken, seen), seen)


def pruned_share(parts: StructureParts, counts: Counts) -> float:
    """The share of zeros of all weights that take a structure."""
    weights = sum(view.shape.weights for view in parts.taken)
    return sum(
        after[1] * view.shape.weights for view, after in parts.structures(counts).items() if after is not None
    ) / max(1, weights)
