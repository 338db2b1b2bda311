"""Whole channels that a search takes step by step, with a training after each, until the network is within a budget.

Every budget is met on the same way: the steps lie in the exploration's folder, so that the next budget goes on from them.
"""

from __future__ import annotations

from ...frontend.base.errors import InputError
from ...frontend.program_file import load_program
from ...passes.pruning.latency import OutOfReach
from ..shrinking.shrink import model_of, shrink
from .ground import Choice, Ground

__all__ = ["shrunk_for"]


def shrunk_for(ground: Ground, kind: str, budget: float) -> Choice:
    """The first step of the shrinking whose network takes no more than the budget; it is trained further like all others.

    Raises:
        OutOfReach: no step takes so little.
        InputError: data are missing for the shrinking, or nothing is left that could go.
    """
    task = ground.shrinking
    if task is None:
        raise InputError(f"{kind} trains at every step, and there are no data for it")
    least, filters = 1.0, 0
    for step in shrink(task):
        filters = filters or step.filters
        module, _ = load_program(model_of(task.folder, step))
        if step.number not in ground.shares:
            ground.shares[step.number] = ground.share_of(module)
        least = min(least, share := ground.shares[step.number])
        if share <= budget:
            gone = 1 - step.filters / filters
            return Choice(share, f"{gone:.0%} of the filters gone in {step.number} steps", module)
    raise OutOfReach(
        f"no step of the shrinking takes {budget:g} of the dense network's time; the fastest takes {least:.3f}"
    )
