"""Chooses how every convolution of a network is computed: by rule, by a cost, or by what was found before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ..kernels.base import LayerSpec, Task
from ..kernels.families import FAMILIES, candidates
from ..kernels.tiles import Machine
from .cache import ChoiceCache
from .cost import Costs

__all__ = ["WINOGRAD", "Winograd", "choose"]

Winograd = Literal["auto", "off", "2x2", "4x4"]

WINOGRAD: dict[str, tuple[str, ...]] = {
    "auto": ("winograd 2x2", "winograd 4x4"),
    "off": (),
    "2x2": ("winograd 2x2",),
    "4x4": ("winograd 4x4",),
}
"""Which of Winograd's families each setting allows."""

_CLEAR_SHARE = 0.95
"""What share of the default's cost another candidate may have at most: measurements are noisy."""


def choose(
    tasks: Sequence[Task],
    machine: Machine,
    winograd: Winograd,
    cost: Costs | None,
    cache: ChoiceCache | None = None,
    figures: dict[LayerSpec, float] | None = None,
) -> dict[Task, LayerSpec]:
    """A specification for each distinct task.

    Without a `cost` it is the direct kernel, or with ``winograd`` given as a size the Winograd kernel wherever it
    applies. With one it is the cheapest, if it is clearly cheaper than the first. `cache` saves asking again. What candidates
    cost is added to `figures`.
    """
    chosen: dict[Task, LayerSpec] = {}
    asked: list[tuple[Task, tuple[LayerSpec, ...]]] = []
    for task in dict.fromkeys(tasks):
        options = _options(task, machine, winograd, cost)
        known = cache.get(options) if cache is not None and len(options) > 1 else None
        if known is not None or len(options) == 1:
            chosen[task] = options[known or 0]
            if figures is not None and cache is not None:
                figures.update(zip(options, cache.costs(options), strict=False))
        else:
            asked.append((task, options))
    if cost is not None and asked:
        found: list[tuple[Sequence[LayerSpec], int, Sequence[float]]] = []
        for (task, options), costs in zip(asked, cost([options for _, options in asked]), strict=True):
            best = min(range(len(costs)), key=costs.__getitem__)
            index = best if costs[best] < _CLEAR_SHARE * costs[0] else 0
            chosen[task] = options[index]
            found.append((options, index, costs))
            if figures is not None:
                figures.update(zip(options, costs, strict=True))
        if cache is not None:
            cache.put(found)
    return chosen


def _options(task: Task, machine: Machine, winograd: Winograd, cost: Costs | None) -> tuple[LayerSpec, ...]:
    if winograd in ("2x2", "4x4"):
        forced = [family for family in FAMILIES if family.name in WINOGRAD[winograd]]
        found = candidates(task, machine, forced)
        if found:
            return found if cost is not None else found[:1]
    if cost is None:
        return (task.spec,)
    left_out = set(WINOGRAD["auto"]) - set(WINOGRAD[winograd])
    return candidates(task, machine, [family for family in FAMILIES if family.name not in left_out])
