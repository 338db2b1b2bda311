"""Zeros inside of layers that meet a budget: of one structure everywhere, or of the one that rules give each layer."""

from __future__ import annotations

from ...passes.pruning.mapping import map_layers
from ...passes.pruning.structure_plan import PlannedLayer, StructurePlan
from ...passes.pruning.structure_rules import AskedStructure, structure_rules
from ...passes.pruning.structure_rules import Choice as LayerChoice
from ...passes.pruning.structured import Ranked, Structured, structured_masks
from ...passes.pruning.zeros_latency import ZerosGoal, structured_for_latency
from ...passes.weight_views import weight_views
from .ground import Choice, Ground

__all__ = ["mapped_for", "structure_for", "told_of"]

_DIGITS = 4
"""Of a share of zeros: names that say it, ``row-block:4@0.6125``, are to be read by people."""


def structure_for(ground: Ground, kind: str, budget: float) -> Choice:
    """The least share of zeros of one structure; layers that gain nothing stay dense.

    Raises:
        OutOfReach: no share is so fast.
        InputError: no layer takes the structure, or a pattern matches nothing.
    """
    rules = structure_rules(kind)

    def give(share: float) -> Structured:
        ranked = Ranked(sparsity=round(share, _DIGITS), ignore=ground.settings.ignore)
        return structured_masks(ground.module, ground.evidence, rules, ranked)

    timed = structured_for_latency(give, ZerosGoal(budget, ground.times))
    taken = [choice for choice in timed.found.choices if choice.structure is not None]
    spelled = {choice.view.name: _spelled(choice, round(timed.asked, _DIGITS)) for choice in taken}
    return Choice(timed.timing.reached, told_of(timed.found), structures=spelled)


def mapped_for(ground: Ground, kind: str, budget: float) -> Choice:
    """The least share of zeros with which `MappingRules` give every layer its structure.

    The rules look at layers alone, in a table, and what they give is timed as a whole network.

    Raises:
        OutOfReach: no share is so fast.
        InputError: no layer's time is known, or a pattern matches nothing.
    """
    views, plans = weight_views(ground.canonical), dict[float, StructurePlan]()

    def give(share: float) -> Structured:
        rounded = round(share, _DIGITS)
        if not rounded:
            return Structured(ground.canonical, (), {}, {})
        plan = plans[rounded] = _plan(ground, map_layers(views, ground.table, ground.settings.rules(rounded)), rounded)
        if not plan:
            return Structured(ground.canonical, (), {}, {})
        return structured_masks(ground.module, ground.evidence, structure_rules(plan), Ranked())

    timed = structured_for_latency(give, ZerosGoal(budget, ground.times))
    plan = plans[round(timed.asked, _DIGITS)]
    return Choice(timed.timing.reached, told_of(timed.found), structures=dict(plan), plan=plan)


def _plan(ground: Ground, layers: tuple[PlannedLayer, ...], share: float) -> StructurePlan:
    settings = ground.settings
    made: dict[str, str | float | int | bool | None] = {
        "method": "rules",
        "sparsity": share,
        "beta": settings.beta,
        "data": settings.difficulty,
    }
    return StructurePlan(layers, ground.target.name, settings.timed_by, ground.table.unit, made)


def _spelled(choice: LayerChoice, share: float) -> str:
    """A layer's structure with its share of zeros, which not all leave to be said."""
    assert choice.structure is not None
    said = choice.share is not None or choice.structure.fixed_sparsity is not None
    return str(AskedStructure(choice.structure, choice.share if said else share))


def told_of(found: Structured) -> str:
    """Which structures, and how many zeros the layers have that take one."""
    names = [str(choice.structure) for choice in found.choices if choice.structure is not None]
    counts = {name: names.count(name) for name in sorted(set(names), key=names.index)}
    layers = ", ".join(f"{name} in {count} layer{'s' * (count > 1)}" for name, count in counts.items())
    some = [mask for mask in found.masks.values() if not bool(mask.all())]
    kept = sum(int(mask.sum()) for mask in some) / max(1, sum(mask.numel() for mask in some))
    return f"{1 - kept:.1%} zeros of {layers}"
