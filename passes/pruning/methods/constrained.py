"""What the methods that train towards a constraint share: its choice, what is logged of it, and weights that are held to it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from ....frontend.base.errors import InputError
from ....frontend.graph_module import CapturedModule
from ..channel_constraint import WholeChannels
from ..constraints import Constraint, InsideLayers
from ..decisions import Widths
from ..structure_rules import StructureRule, spelled_rules, structure_rules
from .base import Hooks, Moment, State, TrainingMethod, Weights

__all__ = ["CHANNELS", "ConstrainedHooks", "ConstrainedMethod", "by_name", "mask_changes", "named", "relative_distance"]

CHANNELS = "channels"
"""In place of a structure: whole channels."""


@dataclass(frozen=True)
class ConstrainedMethod(TrainingMethod):
    """A method that trains towards zeros of some structure.

    Attributes:
        sparsity: share of zeros of the weights that take a structure without a share of its own, or with ``channels`` of the
            channels.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave dense.
        structure: of `reconvene.passes.structures.STRUCTURES`, such as ``row-block:4`` or ``pattern``; with commas between, the
            first that fits a layer; by patterns of names, the first that matches holds; with a share of its own where one is
            said, ``row-block:4@0.8``; a `StructurePlan`, which says it of every layer; or ``channels``.
        scope: the share holds in every ``layer``, or over the whole network (``global``), so that layers differ.
    """

    structure: str | Mapping[str, str] = "unstructured"
    scope: str = "layer"

    def check(self) -> None:
        super().check()
        Widths(self.scope)
        if self.structure != CHANNELS:
            structure_rules(self.structure)

    def with_options(self, given: Mapping[str, Any]) -> Self:
        chosen = super().with_options(given)
        if "sparsity" in given and chosen.structure != CHANNELS:
            shares = {share for rule in chosen.rules() for share in rule.own_shares}
            if None not in shares and chosen.sparsity not in shares:
                spelled = spelled_rules(chosen.rules())
                raise InputError(
                    f"sparsity {chosen.sparsity} has no meaning with {spelled}, which says its share of zeros itself"
                )
        return chosen

    def rules(self) -> tuple[StructureRule, ...]:
        """Which layers take which structure; not for channels."""
        return structure_rules(self.structure)

    def constraint(self, module: CapturedModule) -> Constraint:
        """What a captured module is trained towards.

        Raises:
            InputError: nothing of it takes the structure, a pattern matches nothing, or weights are not finite.
        """
        if self.structure == CHANNELS:
            return WholeChannels.of(module, self.sparsity, Widths(self.scope, ignore=self.ignore))
        return InsideLayers.of(module, self.rules(), self.sparsity, self.scope, self.ignore)

    def masks_in(self, trained: CapturedModule) -> dict[str, Tensor]:
        constraint = self.constraint(trained)
        return constraint.support({name: trained.get_parameter(name).detach() for name in constraint.names})

    def left_alone(self, module: CapturedModule) -> tuple[str, ...]:
        return self.constraint(module).left

    @abstractmethod
    def bound(self, module: CapturedModule) -> Hooks: ...

    def recorded(self) -> dict[str, Any]:
        by_pattern = self.structure if isinstance(self.structure, str) else list(self.structure.items())
        return super().recorded() | {"structure": by_pattern}


@dataclass(frozen=True, eq=False)
class ConstrainedHooks(Hooks):
    """Hooks that see the parameters of a constraint."""

    constraint: Constraint = field(repr=False)

    def weights(self, module: CapturedModule) -> dict[str, nn.Parameter]:
        return {name: module.get_parameter(name) for name in self.constraint.read}

    def figures(self, weights: Weights, state: State) -> dict[str, float]:
        return {"sparsity": self.constraint.sparsity(weights)}

    def settle(self, average: Weights, weights: Weights, state: State) -> None:
        if masks := by_name("mask", state):
            self.hold(average, masks)

    def hold(self, weights: Weights, masks: Mapping[str, Tensor]) -> None:
        """Takes weights to the nearest ones that have the structure and the zeros of masks, in place."""
        for name, value in self.constraint.held(weights, masks).items():
            weights[name].copy_(value)

    def prune(self, weights: Weights) -> State:
        """Takes weights to the nearest ones that have the structure, in place; gives their masks as a state."""
        masks = self.constraint.masks(weights)
        self.hold(weights, masks)
        return named("mask", masks)


def named(kind: str, tensors: Mapping[str, Tensor]) -> State:
    """Tensors by parameter name as entries of a state."""
    return {f"{kind}/{name}": tensor for name, tensor in tensors.items()}


def by_name(kind: str, state: State) -> dict[str, Tensor]:
    """The entries of a kind by parameter name; none where the state has none."""
    start = f"{kind}/"
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def mask_changes(state: State, masks: Mapping[str, Tensor], moment: Moment) -> State:
    """Entries of a state that say in how many places masks changed over an epoch, to be added to it after every step.

    That is SR-STE's SAD, the sum of absolute differences of two masks.
    """
    before = by_name("before", state)
    if before and not moment.ends_epoch:
        return named("before", before) | {"changed": state["changed"]}
    changed = sum((int((mask != before[name]).sum()) for name, mask in masks.items()), 0) if before else 0
    device = next(iter(masks.values())).device
    return named("before", {name: mask.clone() for name, mask in masks.items()}) | {
        "changed": torch.tensor(changed, dtype=torch.float64, device=device)
    }


def relative_distance(weights: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> float:
    """||W - Z|| / ||W|| over all others Z, each of some of the weights; 0 where there are none."""
    apart, lengths = 0.0, 0.0
    for other in others:
        for name, value in other.items():
            apart += float((weights[name] - value).double().square().sum())
            lengths += float(weights[name].double().square().sum())
    return math.sqrt(apart / lengths) if lengths else 0.0
