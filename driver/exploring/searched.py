"""A structure and a share of zeros for each layer that a search finds for a budget."""

from __future__ import annotations

from dataclasses import replace

from ...frontend.base.errors import InputError
from ...passes.pruning.structure_plan import StructurePlan
from ...passes.pruning.structure_rules import structure_rules
from ...passes.pruning.structured import Ranked, structured_masks
from ..searched_mapping import searched
from .ground import Choice, Ground
from .within import Tried, slowest_within
from .zeros import told_of

__all__ = ["searched_for"]

_TRIES = 4
_NEAR = 0.03
"""Of the dense network's time. Every search takes minutes."""

Planned = tuple[StructurePlan, str]
"""And what it is, in words."""


def searched_for(ground: Ground, kind: str, budget: float) -> Choice:
    """What a `StructureSearch` finds, by the accuracy on training images that are held out while it searches.

    The search holds the sum of the layers' times to its budget; that is moved until the whole network is within.

    Raises:
        OutOfReach: no plan is so fast.
        InputError: no time is known, data are missing or cannot be split, or a pattern matches nothing.
    """
    settings, table = ground.settings, ground.table
    if ground.held_out is None:
        raise InputError(f"{kind} tells accuracy on images, and there are none")

    def give(goal: float) -> Tried[Planned]:
        layers, made = searched(
            ground.canonical, ground.evidence.inputs, table, settings.rules(0.5),
            replace(settings.structure_search, budget=goal), None, ground.held_out, ground.evidence.seed,
        )  # fmt: skip
        plan = StructurePlan(layers, ground.target.name, settings.timed_by, table.unit, made)
        if not plan:
            return Tried(1.0, (plan, "nothing"))
        found = structured_masks(ground.module, ground.evidence, structure_rules(plan), Ranked())
        return Tried(ground.times(found.masks).total / ground.dense, (plan, told_of(found)))

    found = slowest_within(give, budget, _TRIES, _NEAR)
    plan, told = found.made
    return Choice(found.share, told, structures=dict(plan), plan=plan)
