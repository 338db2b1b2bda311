"""Channels whose loss costs least once the layers that read them are solved anew; for trained networks, with `recover`.

The order within a group and its costs are those of `recovery.elimination`; how many each group loses follows from the costs of
all groups together: they are shares of the variance of the network's outputs, to second order, so they can be compared. The
channels that go are then those of the lowest costs of the whole network. Dong, Chen and Pan, 2017 ("Learning to prune deep
neural networks via layer-wise optimal brain surgeon", arXiv 1705.07565) bound the loss of a network by layer-wise errors.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx

from ....frontend.base.errors import InputError
from ...canonicalize import canonicalize
from ...compaction import compact
from ...dependency import DependencyView, dependency_view
from ...groups import ChannelGroup
from ...masks import check_finite
from ...recovery.elimination import Elimination
from ...recovery.spared import eliminations
from ..channels import score
from ..decisions import Decision, Scored, Widths, rounded, with_asked
from ..scores import Evidence
from ..trial import tried
from .base import Aim, ChannelMethod, Pruned

__all__ = ["Reconstruction", "spread"]

ALLOCATIONS = ("costs", "uniform")

_UNREAD = "no convolution or linear layer reads its channels, so what they are worth cannot be told"


@dataclass(frozen=True)
class Reconstruction(ChannelMethod):
    """The channels that a solving anew of the layers behind them makes up for best.

    Attributes:
        allocation: ``costs``: the cheapest channels of the whole network go; ``uniform``: every group loses the same share.
        ridge: of the layers that are solved, as a share of the mean variance of what they read; above 0.
    """

    name = "reconstruction"

    allocation: str = "costs"
    ridge: float = 1.0

    @property
    def looks_at_calls(self) -> bool:
        return True

    def check(self) -> None:
        if self.allocation not in ALLOCATIONS:
            raise InputError(f"there is no allocation '{self.allocation}'; choose {' or '.join(ALLOCATIONS)}")
        if isinstance(self.ridge, bool) or not isinstance(self.ridge, int | float) or not 0 < self.ridge < np.inf:
            raise InputError(f"ridge is {self.ridge!r}; give a number above 0")

    def check_aim(self, aim: Aim) -> None:
        super().check_aim(aim)
        if aim.latency is not None:
            raise InputError(
                "a latency cannot be aimed at by the method reconstruction; its sparsity decides, or name a score"
            )
        if aim.widths.scope != "layer":
            raise InputError(
                "a scope is not for the method reconstruction; its 'allocation' says what the share holds over"
            )

    def prune(self, module: fx.GraphModule, evidence: Evidence, aim: Aim) -> Pruned:
        """`aim.sparsity` is a share of the channels of all groups that may lose some.

        The smaller network has the weights that it had; solve its layers anew, with `recover`, to have what is reckoned with.
        """
        self.check_aim(aim)
        if not evidence.calls:
            raise InputError("the method reconstruction looks at what layers give; give it calibration inputs")
        began = time.perf_counter()
        view = dependency_view(canonicalize(module))
        check_finite(view.module)
        found: dict[ChannelGroup, Elimination] = {}

        def ranks(groups: Any) -> dict[ChannelGroup, Any]:
            found.update(eliminations(view, groups, evidence.calls, self.ridge, evidence.seed))
            return {group: entry.ranks for group, entry in found.items()}

        scored = score(view, ranks, aim.widths.ignore)
        decisions = self._decisions(view, scored, found, aim)
        told = time.perf_counter() - began
        trial = tried(module, view, decisions, aim.widths.step)
        result = compact(
            module, evidence.inputs, trial.masks, fold=aim.fold, origin=self._origin(evidence, aim),
            analysis=trial.analysis,
        )  # fmt: skip
        return Pruned(
            dataclasses.replace(
                result,
                groups=with_asked(result.groups, trial.decisions),
                refusals=(*result.refusals, *trial.refusals),
                seconds={**result.seconds, "costs": told, "analysis": trial.seconds},
            )
        )

    def _decisions(
        self, view: DependencyView, scored: Scored, found: Mapping[ChannelGroup, Elimination], aim: Aim
    ) -> tuple[Decision, ...]:
        if self.allocation == "uniform":
            wanted = {group: round(aim.sparsity * group.size) for group in found}
        else:
            wanted = spread(found, float(aim.sparsity), aim.widths)
        decisions = []
        for group in view.groups:
            if group in found:
                decisions.append(rounded(group, found[group].ranks, wanted[group], aim.widths))
                continue
            pattern = scored.ignored[group]
            alone = "only one channel" if group.size == 1 else _UNREAD
            reason = group.reason or (f"left alone by '{pattern}'" if pattern else alone)
            count = 0 if pattern or group.is_interface else round(aim.sparsity * group.size)
            decisions.append(Decision(group, count, np.zeros(group.size, bool), (reason,)))
        return tuple(decisions)

    def _origin(self, evidence: Evidence, aim: Aim) -> dict[str, Any]:
        """What the plan says about where it came from."""
        return {
            "method": self.name,
            "sparsity": float(aim.sparsity),
            "channel_multiple": aim.widths.step,
            "minimum_channels": aim.widths.minimum or 1,
            "ignore": list(aim.widths.ignore),
            "seed": evidence.seed,
            **dataclasses.asdict(self),
        }


def spread(found: Mapping[ChannelGroup, Elimination], share: float, widths: Widths) -> dict[ChannelGroup, int]:
    """How many channels each group loses so that together they lose `share` at the least cost.

    Channels go in steps that leave a multiple, the cheapest step of all groups first, until the share is reached or the next
    one would pass it. A group's later steps never cost less a channel than its earlier ones, so none is taken out of turn.

    Args:
        found: the costs of every group.
        share: of all their channels.
        widths: multiples and floors.
    """
    steps: list[tuple[float, int, int, ChannelGroup]] = []
    for place, (group, entry) in enumerate(found.items()):
        counts, sums = _counts(group, widths), np.concatenate([[0.0], np.cumsum(entry.costs)])
        prices = [(sums[b] - sums[a]) / (b - a) for a, b in itertools.pairwise([0, *counts])]
        steps += [
            (float(price), place, count, group)
            for price, count in zip(itertools.accumulate(prices, max), counts, strict=True)
        ]
    budget = round(share * sum(group.size for group in found))
    lost = dict.fromkeys(found, 0)
    for _, _, count, group in sorted(steps, key=lambda step: step[:3]):
        if count - lost[group] > budget:
            break
        budget -= count - lost[group]
        lost[group] = count
    return lost


def _counts(group: ChannelGroup, widths: Widths) -> list[int]:
    """How many channels the group may lose: what stays is a multiple, alike in all blocks, and not below the floor."""
    floor = max(widths.floor(group.size), group.blocks)
    return [
        lost
        for lost in range(1, group.size - floor + 1)
        if not (group.size - lost) % widths.step and not lost % group.blocks
    ]
