"""What a pruning method decides of a channel group: which channels to zero, and the masks that do it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..outcome import GroupOutcome
from ..values import attribute

__all__ = ["Decision", "masks_of", "rounded", "with_asked"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decision:
    """What a method wants of one group.

    Attributes:
        group: the group.
        wanted: channels to remove by the sparsity alone.
        drop: which channels to zero, after rounding (boolean, one per channel).
        reasons: why `drop` has fewer than `wanted`.
        score: of every channel, if the method has one: the lowest go first.
    """

    group: ChannelGroup
    wanted: int
    drop: Bools
    reasons: tuple[str, ...]
    score: Floats | None = None


def rounded(group: ChannelGroup, score: Floats, wanted: int, multiple: int, minimum: int) -> Decision:
    """The decision that drops the lowest scores, equally many in every block, keeping a multiple and at least the floor."""
    width = group.size // group.blocks
    reasons = []
    keep = max(1, math.ceil((group.size - wanted) / group.blocks))
    if keep * group.blocks > group.size - wanted:
        reasons.append(f"{group.blocks} blocks lose equally many")
    before = keep
    while keep < width and (keep * group.blocks < minimum):
        keep += 1
    if keep != before:
        reasons.append(f"at least {minimum} channels stay")
    before = keep
    while keep < width and keep * group.blocks % multiple:
        keep += 1
    if keep != before:
        reasons.append(f"{(keep - before) * group.blocks} more stay to reach a multiple of {multiple}")
    order = np.argsort(score.reshape(group.blocks, width), axis=1, kind="stable")
    drop = np.zeros((group.blocks, width), bool)
    np.put_along_axis(drop, order[:, : width - keep], True, axis=1)
    return Decision(group, wanted, drop.reshape(-1), tuple(reasons), score)


def with_asked(found: Sequence[GroupOutcome], decisions: Sequence[Decision]) -> tuple[GroupOutcome, ...]:
    """The compaction's view of every group, with what the method wanted as what was asked.

    Both lists are in the order of the graph's groups; a name may stand for several, such as the parts of a split.
    """
    outcomes = []
    for outcome, decision in zip(found, decisions, strict=True):
        reasons = (*decision.reasons, *outcome.reasons) if outcome.got < decision.wanted else ()
        outcomes.append(replace(outcome, asked=decision.wanted, reasons=tuple(dict.fromkeys(reasons))))
    return tuple(outcomes)


def masks_of(view: DependencyView, decisions: Sequence[Decision]) -> dict[str, torch.Tensor]:
    """Masks that zero all that makes the dropped channels: weights, biases and the affine part of normalisation."""
    masks: dict[str, torch.Tensor] = {}
    for decision in decisions:
        if not decision.drop.any():
            continue
        for part in decision.group.slices:
            if part.role != "producer":
                continue
            tensor = attribute(view.module, part.parameter)
            mask = masks.setdefault(part.parameter, torch.ones(tensor.shape, dtype=torch.bool))
            positions = part.positions[decision.drop]
            mask.index_fill_(part.axis, torch.from_numpy(positions[positions >= 0]), False)
    return masks
