"""Nothing is zeroed that would stay: a method's decision is tried before it is carried out.

The analysis that will remove channels runs on the masked module, and what it cannot remove is taken out of the decision,
with its reason, until nothing more stays. The last analysis is the one that the removal uses, so a decision that can be
carried out as it is costs no second one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from ..compaction import analyse, causes_of_channels, channels_where
from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..liveness import Liveness
from .decisions import Decision, masks_of

__all__ = ["Trial", "tried"]

Bools = NDArray[np.bool_]

_SINGLY = 2
"""After so many rounds, groups are left alone as wholes."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A decision of which everything that is zeroed goes.

    Attributes:
        decisions: those that were tried, without the channels that would have stayed.
        masks: by parameter name, True to keep.
        analysis: of the module with these masks; see `compaction.analyse`.
        withheld: how many channels of a group were wanted and are not zeroed; groups without any are left out.
        seconds: that it took.
    """

    decisions: tuple[Decision, ...]
    masks: Mapping[str, torch.Tensor]
    analysis: tuple[DependencyView, Liveness]
    withheld: Mapping[ChannelGroup, int]
    seconds: float

    @property
    def refusals(self) -> tuple[str, ...]:
        """One line for every group of which something was withheld."""
        return tuple(
            f"{decision.group.name}: {self.withheld[decision.group]} of {decision.wanted} channels are not zeroed,"
            f" because they would stay: {'; '.join(decision.reasons)}"
            for decision in self.decisions
            if decision.group in self.withheld
        )


def tried(
    module: fx.GraphModule, view: DependencyView, decisions: Sequence[Decision], channel_multiple: int = 1
) -> Trial:
    """Tries `decisions` about the groups of `view` (of the canonical `module`), and takes out what would stay.

    A channel that only stays to carry the constants of others that go, or to keep a layer's shape, is zeroed all the same.

    Args:
        module: the captured module, which is left as it was.
        view: of its canonical form.
        decisions: one for every group of the view.
        channel_multiple: the channels kept of a group are rounded up to a multiple of this again.
    """
    began = time.perf_counter()
    current, rounds = list(decisions), 0
    while True:
        masks = masks_of(view, current)
        found, live = analyse(module, masks)
        stay = [_staying(found, live, group, decision) for group, decision in zip(found.groups, current, strict=True)]
        if not any(channels.any() for channels in stay):
            break
        rounds += 1
        for place, (group, channels) in enumerate(zip(found.groups, stay, strict=True)):
            if channels.any():
                reasons = causes_of_channels(found, live, group, channels)
                drop = current[place].drop & ~channels if rounds <= _SINGLY else np.zeros(group.size, bool)
                current[place] = _without(current[place], drop, reasons, channel_multiple)
    withheld = {
        before.group: int(before.drop.sum() - after.drop.sum())
        for before, after in zip(decisions, current, strict=True)
        if (before.drop != after.drop).any()
    }
    return Trial(tuple(current), masks, (found, live), withheld, time.perf_counter() - began)


def _staying(view: DependencyView, live: Liveness, group: ChannelGroup, decision: Decision) -> Bools:
    """Channels that would be zeroed for nothing: all of them where none goes."""
    if not decision.drop.any():
        return decision.drop
    if not (decision.drop & ~channels_where(view, group, live.kept)).any():
        return decision.drop
    return decision.drop & channels_where(view, group, live.needed)


def _without(decision: Decision, drop: Bools, reasons: Sequence[str], multiple: int) -> Decision:
    """The decision with fewer channels: equally many in every block, and a multiple kept."""
    group = decision.group
    lost = drop.reshape(group.blocks, -1)
    each = int(lost.sum(1).min())
    while each and (group.size - each * group.blocks) % multiple:
        each -= 1
    score = decision.score if decision.score is not None else np.zeros(group.size)
    order = np.argsort(np.where(lost, score.reshape(lost.shape), np.inf), axis=1, kind="stable")
    fewer = np.zeros(lost.shape, bool)
    np.put_along_axis(fewer, order[:, :each], True, axis=1)
    told = tuple(dict.fromkeys((*decision.reasons, *reasons)))
    return replace(decision, drop=fewer.reshape(-1), reasons=told)
