"""Deciding what to zero: scores over channel groups, spread over layers, rounded to what the target likes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import fx

from ...frontend.base.errors import InputError
from ...frontend.source_line import source_line
from ..canonicalize import canonicalize
from ..compaction import compact
from ..dependency import DependencyView, dependency_view
from ..groups import ChannelGroup
from ..masks import check_finite
from ..outcome import Compaction
from ..rules import rule_of
from ..rules.layout import MERGED
from ..rules.linear_map import unusable
from .channel_scores import METHODS as CHANNEL_METHODS
from .channel_scores import channel_scores
from .decisions import Decision, rounded, with_asked
from .scores import Batch, Loss
from .trial import Trial, tried

if TYPE_CHECKING:
    from .latency import LatencyGoal

__all__ = ["METHODS", "MergedWithBatch", "Scored", "allot", "decide", "held_by_batch", "prune", "score"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_LISTED = 4
"""Reasons that an error names."""

METHODS = tuple(CHANNEL_METHODS)
"""Names that `prune` takes as its method."""


class MergedWithBatch(InputError):
    """Nothing can be pruned, but some could if the batch were a number."""


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

    Nothing is zeroed that the compaction could not remove; the result's `groups` and `refusals` say what that was and why.

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
        trial = tried(module, view, allot(view, scored, sparsity, **rounding), channel_multiple)
    else:
        trial, sparsity, reached = _tried_for_latency(module, view, scored, latency, **rounding)
        aimed = {"latency": latency.share, "modelled_latency": reached}
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
    result = compact(module, example_inputs, trial.masks, origin=origin, analysis=trial.analysis, **check)
    return replace(
        result,
        groups=with_asked(result.groups, trial.decisions),
        refusals=(*result.refusals, *trial.refusals),
        seconds={**result.seconds, "analysis": trial.seconds},
    )


def held_by_batch(found: Compaction) -> str | None:
    """What kept all channels, where it is also that they are merged with a batch that varies; else None."""
    reasons = dict.fromkeys(reason for group in found.groups for reason in group.reasons)
    if any(group.got for group in found.groups) or not any(MERGED in reason for reason in reasons):
        return None
    return f"no channel of this model can be removed: {'; '.join(reasons)}"


def _tried_for_latency(
    module: fx.GraphModule, view: DependencyView, scored: Scored, goal: LatencyGoal, **rounding: Any
) -> tuple[Trial, float, float]:
    """What reaches a goal with channels that really go: the trial, the sparsity, and the share of time."""
    from .latency import decide_for_latency

    while True:
        outcome = decide_for_latency(view, scored, goal, **rounding)
        trial = tried(module, view, outcome.decisions, rounding["channel_multiple"])
        if not trial.withheld:
            return trial, outcome.sparsity, outcome.share
        reasons = {decision.group: "; ".join(decision.reasons) for decision in trial.decisions}
        scored = scored.without({group: reasons[group] for group in trial.withheld})


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
    """Scores of the channels of every group that may lose some; for the others, the pattern that leaves it alone, or what
    was found to hold its channels."""

    scores: Mapping[ChannelGroup, Floats]
    ignored: Mapping[ChannelGroup, str | None]
    held: Mapping[ChannelGroup, str] = field(default_factory=dict)

    def without(self, held: Mapping[ChannelGroup, str]) -> Scored:
        """The same but for groups whose channels turned out to stay, each with the reason."""
        scores = {group: score for group, score in self.scores.items() if group not in held}
        return Scored(scores, self.ignored, {**self.held, **held})


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
    if not free and any(group.prunable and ignored[group] for group in view.groups):
        return Scored({}, ignored)  # All is left alone, as was asked.
    if not free:
        merged = any(MERGED in (group.reason or "") for group in view.groups)
        raise (MergedWithBatch if merged else InputError)(_nothing_to_prune(view))
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
            reason = group.reason or scored.held.get(group) or _left_alone(ignored[group])
            count = 0 if ignored[group] else round(sparsity * group.size)
            decisions.append(Decision(group, count, np.zeros(group.size, bool), (reason,)))
        else:
            decisions.append(rounded(group, scores[group], wanted[group], channel_multiple, minimum_channels))
    return tuple(decisions)


def _left_alone(pattern: str | None) -> str:
    return f"left alone by '{pattern}'" if pattern else "only one channel"


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


def _nothing_to_prune(view: DependencyView) -> str:
    """What holds the channels of a model, or hides its layers."""
    hidden = _hidden_layers(view)
    if not view.groups and not hidden:
        return "this model has no convolution, linear or other weighted layer to prune"
    reasons = [*hidden, *sorted({group.reason for group in view.groups if group.reason})]
    shown = reasons[:_LISTED] + ([f"and {len(reasons) - _LISTED} more"] if len(reasons) > _LISTED else [])
    listed = "; ".join(shown) or "every layer has a single channel"
    return f"no channel of this model can be removed: {listed}"


def _hidden_layers(view: DependencyView) -> list[str]:
    """What keeps layers out of sight: graphs within the graph, and weights that are computed."""
    hiding = {node: rule_of(view.operations[node]).reason(view.operations[node]) for node in view.enclosed}
    hiding |= {node: reason for node, op in view.operations.items() if (reason := unusable(op))}
    return list(dict.fromkeys(f"{reason} ({source_line(node) or node.name})" for node, reason in hiding.items()))


def _wanted(
    groups: Sequence[ChannelGroup], scores: Mapping[ChannelGroup, Floats], sparsity: float, scope: str
) -> dict[ChannelGroup, int]:
    """How many channels of each group fall to the sparsity."""
    if scope == "layer" or not groups:
        return {group: round(sparsity * group.size) for group in groups}
    relative = {group: scores[group] / max(float(scores[group].mean()), 1e-300) for group in groups}
    everything = np.sort(np.concatenate(list(relative.values())))
    count = round(sparsity * everything.size)
    threshold = everything[count - 1] if count else -math.inf
    return {group: int((values <= threshold).sum()) for group, values in relative.items()}
