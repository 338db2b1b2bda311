"""How many channels the blocks of a network hold: a whole vector, or half of one."""

from __future__ import annotations

from dataclasses import replace

from ..graph.nodes import Graph
from ..kernels.tiles import Machine
from ..lowering.survey import survey
from .choice import Winograd, choose
from .cost import AnalyticCost

__all__ = ["fitting_width", "widths"]

_CLEARLY = 0.92
"""What share of the time with whole vectors half ones may take at most: they need twice the instructions."""


def widths(machine: Machine) -> tuple[Machine, ...]:
    """`machine`, and the same with half as many lanes where it runs half vectors at twice the rate."""
    if not machine.halves:
        return (machine,)
    return machine, replace(machine, lanes=machine.lanes // 2, halves=False, rate=2 * machine.rate)


def fitting_width(graph: Graph, machine: Machine, winograd: Winograd) -> Machine:
    """The one of `widths` that is faster.

    A width of 8 or 24 channels leaves much of a vector of 16 lanes empty, and pruned networks are full of such widths.
    The time is that of all convolutions by the cost model.
    """
    whole, *halves = widths(machine)
    for half in halves:
        if _cycles(graph, half, winograd) < _CLEARLY * _cycles(graph, whole, winograd):
            return half
    return whole


def _cycles(graph: Graph, machine: Machine, winograd: Winograd) -> float:
    """Cycles of all convolutions."""
    layers, cost = survey(graph, machine), AnalyticCost(machine)
    chosen = choose(layers, machine, winograd, cost)
    return sum(cost.cycles(chosen[spec]) for spec in layers)
