"""What a pruning method decides of a channel group: how wide it may end, which channels to zero, and the masks that do it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray

from ...frontend.base.errors import InputError
from ..dependency import DependencyView
from ..groups import ChannelGroup
from ..outcome import GroupOutcome

__all__ = [
    "AS_WANTED",
    "Decision",
    "Scored",
    "Widths",
    "allot",
    "check_patterns",
    "check_sparsity",
    "comparable",
    "ignored_by",
    "masks_of",
    "rounded",
    "with_asked",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


SCOPES = ("layer", "global")


@dataclass(frozen=True)
class Widths:
    """How a share is spread over the layers, and how wide they may end.

    Attributes:
        scope: ``layer`` takes the share of every group; ``global`` compares all channels by `comparable` scores.
        multiple: the channels kept of a group are rounded up to a multiple of this; None: to nothing, or as a method has it.
        minimum: no group keeps fewer; None: 1, or as a method has it.
        least_share: no group keeps a smaller share of its channels, from 0 to 1.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave alone.
        shares: patterns with the share that the layers they match lose instead of the general one; the first holds, for all
            layers that make the same channels: see `layer_shares`.

    Raises:
        InputError: one of them is out of range.
    """

    scope: str = "layer"
    multiple: int | None = None
    minimum: int | None = None
    least_share: float = 0.0
    ignore: tuple[str, ...] = ()
    shares: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        for _, share in self.shares:
            check_sparsity(share)
        if self.shares and self.scope != SCOPES[0]:
            raise InputError("shares of single layers are not compared over the network; leave the scope out")
        if self.scope not in SCOPES:
            raise InputError(f"there is no scope '{self.scope}'; choose {' or '.join(SCOPES)}")
        for name, value in (("channel multiple", self.multiple), ("minimum channels", self.minimum)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value} must be at least 1")

    @property
    def step(self) -> int:
        """What a number of channels is a multiple of."""
        return self.multiple or 1

    def floor(self, size: int) -> int:
        """What a group of `size` channels keeps at least."""
        return max(self.minimum or 1, math.ceil(self.least_share * size))

    def share(self, group: ChannelGroup, general: float) -> float:
        """What a group is to lose: as the first pattern says that matches it, else as `general` does."""
        return next((share for pattern, share in self.shares if ignored_by(group, [pattern])), general)


AS_WANTED = Widths()
"""The share of every layer, rounded to nothing."""


def check_sparsity(sparsity: float) -> None:
    """Raises InputError unless it is a number from 0 to below 1."""
    if not (isinstance(sparsity, Real) and 0 <= sparsity < 1):
        raise InputError(f"sparsity {sparsity!r} is outside 0..1; give the share to remove, such as 0.5")


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


def rounded(group: ChannelGroup, score: Floats, wanted: int, widths: Widths = AS_WANTED) -> Decision:
    """The decision that drops the lowest scores, equally many in every block, keeping a multiple and at least the floor."""
    width, floor = group.size // group.blocks, widths.floor(group.size)
    reasons = []
    keep = max(1, math.ceil((group.size - wanted) / group.blocks))
    if keep * group.blocks > group.size - wanted:
        reasons.append(f"{group.blocks} blocks lose equally many")
    before = keep
    while keep < width and keep * group.blocks < floor:
        keep += 1
    if keep != before:
        reasons.append(f"at least {floor} channels stay")
    before = keep
    while keep < width and keep * group.blocks % widths.step:
        keep += 1
    if keep != before:
        reasons.append(f"{(keep - before) * group.blocks} more stay to reach a multiple of {widths.step}")
    order = np.argsort(score.reshape(group.blocks, width), axis=1, kind="stable")
    drop = np.zeros((group.blocks, width), bool)
    np.put_along_axis(drop, order[:, : width - keep], True, axis=1)
    return Decision(group, wanted, drop.reshape(-1), tuple(reasons), score)


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the channels of every group that may lose some; for the others, the pattern that leaves it alone, or what
    was found to hold its channels."""

    scores: Mapping[ChannelGroup, Floats]
    ignored: Mapping[ChannelGroup, str | None]
    held: Mapping[ChannelGroup, str] = field(default_factory=dict)

    def reason(self, group: ChannelGroup) -> str:
        """Why a group without scores loses nothing."""
        return group.reason or self.held.get(group) or _left_alone(self.ignored[group])

    def without(self, held: Mapping[ChannelGroup, str]) -> Scored:
        """The same but for groups whose channels turned out to stay, each with the reason."""
        scores = {group: score for group, score in self.scores.items() if group not in held}
        return Scored(scores, self.ignored, {**self.held, **held})


def allot(
    view: DependencyView,
    scored: Scored,
    sparsity: float,
    widths: Widths = AS_WANTED,
) -> tuple[Decision, ...]:
    """One decision for every group of the view from scores and a share to remove."""
    scores, ignored = scored.scores, scored.ignored
    check_patterns(view, [pattern for pattern, _ in widths.shares])
    wanted = _wanted(list(scores), scores, sparsity, widths)
    decisions = []
    for group in view.groups:
        if group not in scores:
            count = 0 if ignored[group] or group.is_interface else round(widths.share(group, sparsity) * group.size)
            decisions.append(Decision(group, count, np.zeros(group.size, bool), (scored.reason(group),)))
        else:
            decisions.append(rounded(group, scores[group], wanted[group], widths))
    return tuple(decisions)


def _left_alone(pattern: str | None) -> str:
    return f"left alone by '{pattern}'" if pattern else "only one channel"


def _wanted(
    groups: Sequence[ChannelGroup], scores: Mapping[ChannelGroup, Floats], sparsity: float, widths: Widths
) -> dict[ChannelGroup, int]:
    """How many channels of each group fall to the sparsity."""
    if widths.scope == "layer" or not groups:
        return {group: round(widths.share(group, sparsity) * group.size) for group in groups}
    relative = comparable({group: scores[group] for group in groups})
    everything = np.sort(np.concatenate(list(relative.values())))
    count = round(sparsity * everything.size)
    threshold = everything[count - 1] if count else -math.inf
    return {group: int((values <= threshold).sum()) for group, values in relative.items()}


def comparable(scores: Mapping[ChannelGroup, Floats]) -> dict[ChannelGroup, Floats]:
    """Scores that can be compared between groups, whatever the scale that each group's are on.

    Scores of 0 and more are divided by their group's mean. Where some group has negative ones, 0 is no least score and a mean
    no scale: of all groups, the mean is subtracted, and the mean absolute deviation from it divides.
    """
    if all(values.min(initial=0.0) >= 0 for values in scores.values()):
        return {group: values / max(float(values.mean()), 1e-300) for group, values in scores.items()}
    return {group: _standardised(values) for group, values in scores.items()}


def _standardised(values: Floats) -> Floats:
    around = values - values.mean()
    deviation = float(np.abs(around).mean())
    # Equal scores differ from their mean by its rounding.
    return around / deviation if deviation > 1e-12 * float(np.abs(values).max()) else np.zeros_like(values)


def ignored_by(group: ChannelGroup, patterns: Sequence[str]) -> str | None:
    """The first pattern that names a parameter (or its layer) that makes the group's channels."""
    names = [part.parameter for part in group.slices if part.role == "producer"]
    layers = [name.rpartition(".")[0] for name in names]
    return next((p for p in patterns if any(fnmatch(name, p) for name in [*names, *layers])), None)


def check_patterns(view: DependencyView, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(ignored_by(group, [pattern]) for group in view.groups):
            example = view.groups[0].name if view.groups else "conv1.weight"
            raise InputError(f"the pattern '{pattern}' matches no layer; names look like '{example}'")


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
    return view.masks({decision.group: decision.drop for decision in decisions})
