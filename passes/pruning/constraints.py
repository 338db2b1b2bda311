"""Sets of networks whose zeros are of a kind, and the network of a set that is nearest to given weights.

That is all that methods which train have to know of structures: what they train towards is a `Constraint`, whether its zeros
lie inside of layers (`InsideLayers`) or are whole channels (`channel_constraint.WholeChannels`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ..canonicalize import canonicalize
from ..masks import check_finite
from ..structures import Structure
from ..values import attribute
from ..weight_views import WeightView, weight_views, with_other_names
from .structure_rules import Choice, StructureRule, choose
from .structured import fitted, shares_of_layers

__all__ = ["Constraint", "InsideLayers"]

Values = Mapping[str, Tensor]


class Constraint(ABC):
    """A set of networks.

    Values are parameters, or tensors like them, by parameter name and on any device; masks are boolean, of the same shapes,
    True where a value stays.
    """

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The parameters that have zeros in a network of the set."""

    @property
    def read(self) -> tuple[str, ...]:
        """Those and all others that `groups` looks at."""
        return self.names

    @abstractmethod
    def masks(self, values: Values, done: float = 1.0) -> dict[str, Tensor]:
        """Where the nearest network of the set has values, by the Euclidean norm.

        Args:
            values: of `names`.
            done: how much of the way from dense to the set: so much of its share of zeros; from 0 to 1.
        """

    @abstractmethod
    def held(self, values: Values, masks: Values) -> dict[str, Tensor]:
        """The nearest network of the set whose zeros are those of masks that it gave."""

    @abstractmethod
    def groups(self, values: Values) -> dict[str, tuple[Tensor, ...]]:
        """Squared norms of what is to become zero together, by layer or channel group. Gradients pass."""

    @abstractmethod
    def sparsity(self, values: Values) -> float:
        """The share of what the set is about that is zero: of weights, or of channels."""

    @abstractmethod
    def support(self, values: Values) -> dict[str, Tensor]:
        """Masks of what a network of the set has: its zeros may stay so in another training."""

    @property
    @abstractmethod
    def left(self) -> tuple[str, ...]:
        """One line for all that the set leaves as it is, with the reason."""

    def projected(self, values: Values) -> dict[str, Tensor]:
        """The nearest network of the set."""
        return self.held(values, self.masks(values))

    def factors(self) -> tuple[Constraint, ...]:
        """Larger sets that have this one in common."""
        return (self,)


@dataclass(frozen=True, eq=False)
class InsideLayers(Constraint):
    """Weights whose zeros have a structure, of every layer its own.

    Attributes:
        taken: which structure each weight takes.
        share: of zeros, of the weights that have no share of their own and take a structure which does not say it itself.
        scope: ``layer``: of every layer; ``global``: of all of them, by the mean squares of units.
        choices: of every weight of the network, also of those that stay dense.
        factor: which one of the structures that a layer's has as its `factors`; None for the layer's own.
        own: the shares of layers that have one of their own.
    """

    taken: Mapping[WeightView, Structure]
    share: float
    scope: str = "layer"
    choices: tuple[Choice, ...] = field(default=(), repr=False)
    factor: int | None = None
    own: Mapping[WeightView, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        module: CapturedModule,
        rules: Sequence[StructureRule],
        share: float,
        scope: str = "layer",
        ignore: Sequence[str] = (),
    ) -> InsideLayers:
        """For a captured module, whose weights decide what structures choose once for all layers.

        Raises:
            InputError: a pattern matches nothing, no layer takes a structure, or weights are not finite.
        """
        canonical = canonicalize(module)
        check_finite(canonical)
        choices = choose(with_other_names(weight_views(canonical), module), rules, ignore)
        parameters = dict(module.named_parameters())
        taken = {choice.view: choice.structure for choice in choices if choice.structure is not None}
        for view in taken:
            if view.name not in parameters:
                raise InputError(f"'{view.name}' is computed from other tensors; leave it dense with ignore")
        seen = {view: view.seen(attribute(canonical, view.name).detach()) for view in taken}
        scores = {view: structure.energy(seen[view]) for view, structure in taken.items()}
        own = {choice.view: choice.share for choice in choices if choice.share is not None}
        return cls(fitted(taken, scores), share, scope, choices, own=own)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(view.name for view in self.taken)

    def masks(self, values: Values, done: float = 1.0) -> dict[str, Tensor]:
        scores = {view: structure.energy(view.seen(values[view.name])) for view, structure in self.taken.items()}
        shares = self._shares(scores)
        found = {}
        for view, structure in self.taken.items():
            chosen, share = structure, shares[view]
            if self.factor is not None:
                chosen, share = structure.factors(share)[self.factor]
            if done < 1:
                share *= done
                chosen = chosen.at(share)
            found[view.name] = view.stored(chosen.mask(scores[view], share))
        return found

    def held(self, values: Values, masks: Values) -> dict[str, Tensor]:
        return {
            view.name: view.stored(structure.applied(view.seen(values[view.name]), view.seen(masks[view.name])))
            for view, structure in self.taken.items()
        }

    def groups(self, values: Values) -> dict[str, tuple[Tensor, ...]]:
        return {
            view.name: structure.lasso_groups(view.seen(values[view.name]).square())
            for view, structure in self.taken.items()
        }

    def sparsity(self, values: Values) -> float:
        zeros = sum(int((values[name] == 0).sum()) for name in self.names)
        return zeros / sum(values[name].numel() for name in self.names)

    def support(self, values: Values) -> dict[str, Tensor]:
        return {name: values[name] != 0 for name in self.names}

    @property
    def left(self) -> tuple[str, ...]:
        dense = [choice for choice in self.choices if choice.structure is None]
        names: dict[tuple[str, str], list[str]] = {}
        for choice in dense:
            names.setdefault(("follows" if choice.view.source else "stays dense", choice.reason), []).append(
                choice.view.name
            )
        return tuple(f"{said}: {', '.join(alike)}: {reason}" for (said, reason), alike in names.items())

    def factors(self) -> tuple[Constraint, ...]:
        most = max(self._factors_of(view) for view in self.taken)
        if most == 1:
            return (self,)
        return tuple(replace(self, taken=self._with_factor(place), factor=place) for place in range(most))

    def with_shares(self, values: Values) -> dict[WeightView, tuple[Structure, float]]:
        """The structure of each weight, and its share of zeros in the nearest network of the set."""
        shares = self._shares({view: own.energy(view.seen(values[view.name])) for view, own in self.taken.items()})
        return {view: (structure, shares[view]) for view, structure in self.taken.items()}

    def _with_factor(self, place: int) -> dict[WeightView, Structure]:
        return {view: structure for view, structure in self.taken.items() if place < self._factors_of(view)}

    def _factors_of(self, view: WeightView) -> int:
        return len(self.taken[view].factors(self.own.get(view, self.share)))

    def _shares(self, scores: Mapping[WeightView, Tensor]) -> dict[WeightView, float]:
        return shares_of_layers(self.taken, scores, self.share, self.scope, self.own)
