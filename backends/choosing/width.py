"""How many channels the blocks of a network hold: a whole vector, or half of one."""

from __future__ import annotations

from dataclasses import replace

from ..graph.nodes import Graph
from ..kernels.tiles import Machine
from ..lowering.plan import make_plan
from ..lowering.steps import KernelPlan
from .choice import Winograd, choose
from .cost import AnalyticCost

__all__ = ["fitting_plan", "widths"]

_CLEAR_SHARE = 0.92
"""What share of the time with whole vectors half ones may take at most: they need twice the instructions."""


def widths(machine: Machine) -> tuple[Machine, ...]:
    """`machine`, and the same with half as many lanes where it runs half vectors at twice the rate."""
    if not machine.halves:
        return (machine,)
    return machine, replace(machine, vector_bytes=machine.vector_bytes // 2, halves=False, rate=2 * machine.rate)


def fitting_plan(graph: Graph, machine: Machine, winograd: Winograd) -> KernelPlan:
    """The plan for the one of `widths` that is faster.

    A width of 8 or 24 channels leaves much of a vector of 16 lanes empty, and pruned networks are full of such widths.
    The time is that of all convolutions by the cost model.
    """
    whole, *halves = (make_plan(graph, width) for width in widths(machine))
    for half in halves:
        if _cycles(half, winograd) < _CLEAR_SHARE * _cycles(whole, winograd):
            return half
    return whole


def _cycles(plan: KernelPlan, winograd: Winograd) -> float:
    """Cycles of all convolutions."""
    chosen = choose(plan.tasks, plan.machine, winograd, AnalyticCost(plan.machine))
    return sum(chosen[task].cycles(plan.machine) for task in plan.tasks)
