"""Deciding what to zero: scores over channel groups, spread over layers, rounded to what the target likes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import fx

from ..frontend.errors import InputError
from ..frontend.source_line import source_line
from .canonicalize import canonicalize
from .channel_scores import METHODS as CHANNEL_METHODS
from .channel_scores import channel_scores
from .compaction import compact
from .dependency import ChannelGroup, DependencyView, dependency_view
from .masks import check_finite
from .outcome import Compaction, GroupOutcome
from .rules import rule_of
from .rules.linear_map import unusable
from .scores import Batch, Loss
from .values import attribute

if TYPE_CHECKING:
    from .latency import LatencyGoal

__all__ = ["METHODS", "Decision", "Scored", "allot", "decide", "masks_of", "prune", "rounded", "score", "with_asked"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

METHODS = tuple(CHANNEL_METHODS)
"""Names that `prune` takes as its method."""


@dataclass(frozen=True, eq=False)
class Decision:
    """What a method wants of one group.

    Attributes:
        group: the group.
        wanted: channels to remove by the sparsity alone.
        drop: which channels to zero, after rounding (boolean, one per channel).
        reasons: why `drop` has fewer than `wanted`.
    """

    group: ChannelGroup
    wanted: int
    drop: Bools
    reasons: tuple[str, ...]


def prune(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    method: str = "magnitude",
    sparsity: float = 0.5,
    *,
    scope: str = "layer",
    channel_multiple: int = 1,
    minimum_channels: int = 1,
    ignore: Sequence[str] = (),
    seed: int = 0,
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
    latency: LatencyGoal | None = None,
    **check: Any,
) -> Compaction:
    """Zeroes the channels with the lowest scores and compacts. `module` is left as it was.

    Args:
        module: a captured module.
        example_inputs: positional inputs that fit it.
        method: one of `METHODS`.
        sparsity: share of the channels to remove, at least 0 and below 1.
        scope: ``layer`` takes that share of every group; ``global`` compares all channels, each divided by its group's
            mean score.
        channel_multiple: the channels kept of a group are rounded up to a multiple of this.
        minimum_channels: no group keeps fewer.
        ignore: patterns (``fnmatch``) of parameter or layer names to leave alone.
        seed: of random scores.
        batches: inputs and targets, for the methods that need data (SNIP, GraSP).
        loss: for these methods.
        latency: a share of the dense network's time to reach, instead of `sparsity`, which is then found.
        check: options of the certificate, see `compact`.

    Raises:
        InputError: an option is out of range, a pattern matches nothing, or nothing of the model can be pruned.
        CheckError: the compacted model differs from the masked one.
    """
    _check_options(method, sparsity, scope, channel_multiple, minimum_channels)
    view = dependency_view(canonicalize(module))
    check_finite(view.module)
    data: dict[str, Any] = {"example_inputs": example_inputs, "batches": batches, "loss": loss}
    scored = score(view, method, ignore=ignore, seed=seed, **data)
    rounding: dict[str, Any] = {
        "scope": scope,
        "channel_multiple": channel_multiple,
        "minimum_channels": minimum_channels,
    }
    aimed: dict[str, Any] = {}
    if latency is None:
        decisions = allot(view, scored, sparsity, **rounding)
    else:
        from .latency import decide_for_latency

        outcome = decide_for_latency(view, scored, latency, **rounding)
        decisions, sparsity = outcome.decisions, outcome.sparsity
        aimed = {"latency": latency.share, "modelled_latency": outcome.share}
    origin = {
        "method": method,
        "sparsity": sparsity,
        **aimed,
        "scope": scope,
        "channel_multiple": channel_multiple,
        "minimum_channels": minimum_channels,
        "ignore": list(ignore),
        "seed": seed,
    }
    result = compact(module, example_inputs, masks_of(view, decisions), origin=origin, **check)
    return replace(result, groups=with_asked(result.groups, decisions))


def decide(
    view: DependencyView,
    method: str,
    sparsity: float,
    *,
    scope: str = "layer",
    channel_multiple: int = 1,
    minimum_channels: int = 1,
    ignore: Sequence[str] = (),
    seed: int = 0,
    example_inputs: Sequence[Any] = (),
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
) -> tuple[Decision, ...]:
    """One decision for every group of the view, also for those that cannot or must not lose anything.

    Raises:
        InputError: a pattern matches nothing, or no group can be pruned.
    """
    data: dict[str, Any] = {"example_inputs": example_inputs, "batches": batches, "loss": loss}
    scored = score(view, method, ignore=ignore, seed=seed, **data)
    return allot(
        view, scored, sparsity, scope=scope, channel_multiple=channel_multiple, minimum_channels=minimum_channels
    )


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of the channels of every group that may lose some; for the others, the pattern that leaves it alone."""

    scores: Mapping[ChannelGroup, Floats]
    ignored: Mapping[ChannelGroup, str | None]


def score(
    view: DependencyView,
    method: str,
    *,
    ignore: Sequence[str] = (),
    seed: int = 0,
    example_inputs: Sequence[Any] = (),
    batches: Sequence[Batch] = (),
    loss: Loss = F.cross_entropy,
) -> Scored:
    """Scores by `method`. Raises InputError when a pattern matches nothing or no group can be pruned."""
    ignored = {group: ignored_by(group, ignore) for group in view.groups}
    check_patterns(view, ignore)
    free = [group for group in view.groups if group.prunable and not ignored[group] and group.size > 1]
    if not free:
        raise InputError(_nothing_to_prune(view, ignore))
    return Scored(channel_scores(view, free, method, example_inputs, batches=batches, loss=loss, seed=seed), ignored)


def allot(
    view: DependencyView,
    scored: Scored,
    sparsity: float,
    *,
    scope: str = "layer",
    channel_multiple: int = 1,
    minimum_channels: int = 1,
) -> tuple[Decision, ...]:
    """One decision for every group of the view from scores and a share to remove."""
    scores, ignored = scored.scores, scored.ignored
    wanted = _wanted(list(scores), scores, sparsity, scope)
    decisions = []
    for group in view.groups:
        if group not in scores:
            reason = group.reason or (f"left alone by '{ignored[group]}'" if ignored[group] else "only one channel")
            count = 0 if ignored[group] else round(sparsity * group.size)
            decisions.append(Decision(group, count, np.zeros(group.size, bool), (reason,)))
        else:
            decisions.append(rounded(group, scores[group], wanted[group], channel_multiple, minimum_channels))
    return tuple(decisions)


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


def _check_options(method: str, sparsity: float, scope: str, channel_multiple: int, minimum_channels: int) -> None:
    if method not in METHODS:
        raise InputError(f"there is no pruning method '{method}'; choose one of {', '.join(METHODS)}")
    if not (isinstance(sparsity, int | float) and math.isfinite(sparsity) and 0 <= sparsity < 1):
        raise InputError(f"sparsity {sparsity} is outside 0..1; give the share of channels to remove, such as 0.5")
    if scope not in ("layer", "global"):
        raise InputError(f"there is no scope '{scope}'; choose layer or global")
    if channel_multiple < 1 or minimum_channels < 1:
        raise InputError("the channel multiple and the smallest number of channels must be at least 1")


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


def _nothing_to_prune(view: DependencyView, ignore: Sequence[str]) -> str:
    if not view.groups:
        return _no_layers(view)
    reasons = {group.reason for group in view.groups if group.reason}
    if ignore and any(group.prunable for group in view.groups):
        return "every prunable layer is left alone by a pattern; drop one of them"
    listed = "; ".join(sorted(reasons)) or "every layer has a single channel"
    return f"no channel of this model can be removed: {listed}"


def _no_layers(view: DependencyView) -> str:
    """What hides the layers of a model without a channel group, where something does."""
    hiding = {node: rule_of(view.operations[node]).reason(view.operations[node]) for node in view.enclosed}
    hiding |= {node: reason for node, op in view.operations.items() if (reason := unusable(op))}
    if not hiding:
        return "this model has no convolution, linear or other weighted layer to prune"
    listed = dict.fromkeys(f"{reason} ({source_line(node) or node.name})" for node, reason in hiding.items())
    return f"no channel of this model can be removed: {'; '.join(list(listed)[:3])}"


def _wanted(
    groups: Sequence[ChannelGroup], scores: Mapping[ChannelGroup, Floats], sparsity: float, scope: str
) -> dict[ChannelGroup, int]:
    """How many channels of each group fall to the sparsity."""
    if scope == "layer":
        return {group: round(sparsity * group.size) for group in groups}
    relative = {group: scores[group] / max(float(scores[group].mean()), 1e-300) for group in groups}
    everything = np.sort(np.concatenate(list(relative.values())))
    count = round(sparsity * everything.size)
    threshold = everything[count - 1] if count else -math.inf
    return {group: int((values <= threshold).sum()) for group, values in relative.items()}


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
    return Decision(group, wanted, drop.reshape(-1), tuple(reasons))


def with_asked(found: Sequence[GroupOutcome], decisions: Sequence[Decision]) -> tuple[GroupOutcome, ...]:
    """The compaction's view of every group, with what the method wanted as what was asked.

    Both lists are in the order of the graph's groups; a name may stand for several, such as the parts of a split.
    """
    outcomes = []
    for outcome, decision in zip(found, decisions, strict=True):
        reasons = (*decision.reasons, *outcome.reasons) if outcome.got < decision.wanted else ()
        outcomes.append(replace(outcome, asked=decision.wanted, reasons=tuple(dict.fromkeys(reasons))))
    return tuple(outcomes)
