"""Widths by a knapsack: the most importance that fits into a time, every group at one of some widths.

That is what HALP aims at (Shen et al., 2021, arXiv 2110.10811), with an augmented knapsack over groups of neurons and a
table of latencies. Here the widths of all channel groups are chosen together, by integer programming: a layer's time depends
on what it reads and on what it makes, and is looked up for every pair of widths.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from ...frontend.base.errors import InputError
from ..dependency import DependencyView
from ..groups import ChannelGroup
from .decisions import AS_WANTED, Decision, Scored, Widths, rounded
from .latency import LatencyGoal, LatencyOutcome, OutOfReach, layer_channels

__all__ = ["Table", "packed_for_latency", "solve"]

Floats = NDArray[np.float64]
_Lost = dict[tuple[str, int], int]
"""Positions that go, by parameter and axis."""
_Losses = Sequence[Sequence[_Lost]]
"""Of every choice of every group."""

_MOST_SECONDS = 120.0
_TRIES = 8
"""Budgets that are tried, where times of layers that read several groups are estimated."""


@dataclass(frozen=True, eq=False)
class Table:
    """Times of one layer.

    Attributes:
        places: of the groups that it depends on, one or two; a piece of a layer may depend on none.
        times: by the choices of these groups, one axis each.
    """

    places: tuple[int, ...]
    times: Floats


def solve(values: Sequence[Sequence[float]], tables: Sequence[Table], budget: float) -> tuple[int, ...] | None:
    """One choice for every group, so that values add up to the most and times to no more than the budget; None if none fits.

    With x the choices of groups as numbers 0 or 1, z of a layer is to be the product of the choices of its two groups: its
    sums along either axis are the other group's x. That is exact for whole x, and as tight as it can be for others.

    Args:
        values: of every choice of every group.
        tables: of all layers.
        budget: at least 0.
    """
    begins = np.cumsum([0, *map(len, values)])
    pairs = [table for table in tables if len(table.places) == 2]
    offsets = np.cumsum([begins[-1], *(table.times.size for table in pairs)])
    many = int(offsets[-1])
    time = np.zeros(many)
    for table in tables:
        if len(table.places) == 1:
            (place,) = table.places
            time[begins[place] : begins[place + 1]] += table.times
    for table, offset in zip(pairs, offsets, strict=False):
        time[offset : offset + table.times.size] += table.times.reshape(-1)
    rows = len(values) + sum(sum(table.times.shape) for table in pairs)
    equal, right = lil_array((rows, many)), np.zeros(rows)
    for place in range(len(values)):
        equal[place, begins[place] : begins[place + 1]] = 1.0
        right[place] = 1.0
    row = len(values)
    for table, offset in zip(pairs, offsets, strict=False):
        numbers = np.arange(table.times.size).reshape(table.times.shape) + offset
        for place, sums in zip(table.places, (numbers, numbers.T), strict=True):
            for choice, summed in enumerate(sums):
                equal[row, summed] = 1.0
                equal[row, begins[place] + choice] = -1.0
                row += 1
    gain = np.zeros(many)
    gain[: begins[-1]] = np.concatenate([np.asarray(some, np.float64) for some in values])
    # The solver's tolerances are absolute, and times may be nanoseconds or millions of cycles.
    scale, worth = max(float(time.max(initial=0.0)), 1e-300), max(float(np.abs(gain).max(initial=0.0)), 1e-300)
    found = milp(
        -gain / worth,
        integrality=(np.arange(many) < begins[-1]).astype(int),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(equal.tocsr(), right, right),
            LinearConstraint(time[None, :] / scale, -np.inf, budget / scale),
        ],
        options={"time_limit": _MOST_SECONDS, "mip_rel_gap": 1e-6},
    )
    if found.x is None:
        return None
    return tuple(int(found.x[first:last].argmax()) for first, last in itertools.pairwise(begins))


def packed_for_latency(
    view: DependencyView, scored: Scored, goal: LatencyGoal, widths: Widths = AS_WANTED, choices: int = 16
) -> LatencyOutcome:
    """The widths that keep the most importance in the goal's share of the layers' time.

    Args:
        view: of the network.
        scored: the importance of channels, which adds up.
        goal: share of the dense time, and what tells times.
        widths: multiples and floors of what is kept.
        choices: widths of a group that are tried, about: all of a narrow one, evenly spaced ones of a wide one.

    Raises:
        OutOfReach: the share cannot be reached.
        InputError: no layer's time is known, or no solution was found in two minutes.
    """
    knapsack = _Knapsack(view, scored, goal, widths, choices)
    dense = knapsack.time(())
    if dense <= 0:
        raise InputError("no layer of this model has a known time, so a latency cannot be aimed at; give a sparsity")
    budget = wanted = goal.share * dense
    for _ in range(_TRIES):
        decisions = knapsack.solved(budget)
        if decisions is None:
            least = knapsack.time(knapsack.narrowest()) / dense
            if least > goal.share:
                raise OutOfReach(
                    f"latency {goal.share} cannot be reached: with every layer at its least it is {least:.2f}"
                )
            raise InputError(
                f"no widths for latency {goal.share} were found; try fewer choices, or decide by a score instead"
            )
        reached = knapsack.time(decisions)
        if reached <= wanted * (1 + 1e-9):
            gone = sum(int(decision.drop.sum()) for decision in decisions)
            return LatencyOutcome(decisions, gone / max(1, knapsack.channels), reached / dense)
        budget -= 1.05 * (reached - wanted)
    raise InputError(
        f"no widths for latency {goal.share} were found, as layers that read several groups are only estimated; decide by a"
        " score instead"
    )


@dataclass(frozen=True, eq=False)
class _Knapsack:
    view: DependencyView
    scored: Scored
    goal: LatencyGoal
    widths: Widths
    choices: int

    @property
    def groups(self) -> list[ChannelGroup]:
        return [group for group in self.view.groups if group in self.scored.scores]

    @property
    def channels(self) -> int:
        return sum(group.size for group in self.groups)

    def time(self, decisions: Sequence[Decision]) -> float:
        """Of all layers after decisions."""
        return sum(self.goal.time(name, *sizes) for name, sizes in layer_channels(self.view, decisions).items())

    def narrowest(self) -> tuple[Decision, ...]:
        return self._all([options[0] for options in self._options()])

    def solved(self, budget: float) -> tuple[Decision, ...] | None:
        options = self._options()
        values = [[float(self.scored.scores[option.group][~option.drop].sum()) for option in some] for some in options]
        tables, fixed = self._tables(options)
        chosen = solve(values, tables, budget - fixed) if budget >= fixed else None
        if chosen is None:
            return None
        return self._all([some[choice] for some, choice in zip(options, chosen, strict=True)])

    def _options(self) -> list[list[Decision]]:
        """What each group may become, from the narrowest to all of it."""
        return [self._of_group(group) for group in self.groups]

    def _of_group(self, group: ChannelGroup) -> list[Decision]:
        least = max(group.blocks, self.widths.step)
        step = least * max(1, math.ceil(group.size / (least * self.choices)))
        kept = [*range(step, group.size, step), group.size]
        made = [rounded(group, self.scored.scores[group], group.size - width, self.widths) for width in kept]
        return list({int((~decision.drop).sum()): decision for decision in made}.values())

    def _all(self, chosen: Sequence[Decision]) -> tuple[Decision, ...]:
        by_group = {decision.group: decision for decision in chosen}
        return tuple(
            by_group.get(group, Decision(group, 0, np.zeros(group.size, bool), ())) for group in self.view.groups
        )

    def _tables(self, options: Sequence[Sequence[Decision]]) -> tuple[list[Table], float]:
        """Of the layers, and the time that no width changes."""
        dense = layer_channels(self.view, ())
        losses = [[_lost(option) for option in some] for some in options]
        fixed, tables = 0.0, []
        for name, sizes in dense.items():
            if (whole := self.goal.time(name, *sizes)) <= 0:
                continue
            places = [place for place, some in enumerate(losses) if any(_touches(lost, name) for lost in some)]
            if not places:
                fixed += whole
            elif len(places) <= 2:
                tables.append(self._table(name, sizes, places, losses))
            else:
                pieces = self._pieces(name, sizes, places, losses)
                fixed += sum(float(piece.times) for piece in pieces if not piece.places)
                tables += [piece for piece in pieces if piece.places]
        return tables, fixed

    def _pieces(self, name: str, sizes: tuple[int, int], places: Sequence[int], losses: _Losses) -> list[Table]:
        """A layer of more than two groups as a sum of layers, each of what one group makes of one that it reads.

        Together they take as long as the layer does while it is dense. How far that holds for narrower ones is seen later.
        """
        pieces = []
        for axis, size in zip((1, 0), sizes, strict=True):
            held = {place: self._positions(self.groups[place], name, axis) for place in places}
            rest = size - sum(held.values())
            pieces.append(
                [*((place, count) for place, count in held.items() if count), *([(None, rest)] if rest else [])]
            )
        found, whole = [], 0.0
        for (inner, read), (outer, made) in itertools.product(*pieces):
            both = tuple(dict.fromkeys(place for place in (inner, outer) if place is not None))
            whole += self.goal.time(name, read, made)
            axes = [(inner, 1), (outer, 0)]
            seen = [
                [
                    _only(lost, [axis for owner, axis in axes if owner == place]) if place in both else {}
                    for lost in some
                ]
                for place, some in enumerate(losses)
            ]
            found.append(self._table(name, (read, made), both, seen))
        scale = self.goal.time(name, *sizes) / whole if whole > 0 else 0.0
        return [Table(table.places, table.times * scale) for table in found]

    def _positions(self, group: ChannelGroup, name: str, axis: int) -> int:
        return sum(
            int((part.positions >= 0).sum()) for part in group.slices if (part.parameter, part.axis) == (name, axis)
        )

    def _table(self, name: str, sizes: tuple[int, int], places: Sequence[int], losses: _Losses) -> Table:
        times = np.zeros([len(losses[place]) for place in places])
        for index in np.ndindex(*times.shape):
            lost = [losses[place][choice] for place, choice in zip(places, index, strict=True)]
            inner, outer = (
                size - sum(one.get((name, axis), 0) for one in lost) for size, axis in zip(sizes, (1, 0), strict=True)
            )
            times[index] = self.goal.time(name, inner, outer)
        return Table(tuple(places), times)


def _lost(decision: Decision) -> _Lost:
    found: _Lost = {}
    for part in decision.group.slices:
        count = int((part.positions[decision.drop] >= 0).sum())
        if count:
            found[part.parameter, part.axis] = found.get((part.parameter, part.axis), 0) + count
    return found


def _only(lost: _Lost, axes: Sequence[int]) -> _Lost:
    return {(name, axis): count for (name, axis), count in lost.items() if axis in axes}


def _touches(lost: _Lost, name: str) -> bool:
    return (name, 0) in lost or (name, 1) in lost
