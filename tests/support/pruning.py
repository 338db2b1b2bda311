"""Pruning a captured module by a method's name, with loose options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from reconvene.passes.dependency import DependencyView
from reconvene.passes.outcome import Compaction
from reconvene.passes.pruning.decisions import Scored, Widths
from reconvene.passes.pruning.latency import LatencyGoal
from reconvene.passes.pruning.methods import find_method, methods_of
from reconvene.passes.pruning.methods.base import Aim, ChannelMethod
from reconvene.passes.pruning.methods.one_shot import Magnitude, OneShot
from reconvene.passes.pruning.scores import Batch, Evidence

__all__ = ["ONE_SHOT", "by_magnitude", "prune"]

ONE_SHOT = tuple(methods_of(OneShot))


def prune(
    module: fx.GraphModule,
    inputs: Sequence[Any],
    method: str = "magnitude",
    sparsity: float = 0.5,
    *,
    latency: LatencyGoal | None = None,
    batches: Sequence[Batch] = (),
    seed: int = 0,
    **widths: Any,
) -> Compaction:
    """What a method leaves of a captured module."""
    share, time = (None, None) if latency is None else (latency.share, latency.time)
    aim = Aim(sparsity, Widths(**widths), share, time)
    return find_method(method, ChannelMethod).prune(module, Evidence(tuple(inputs), batches, seed=seed), aim).compaction


def by_magnitude(view: DependencyView) -> Scored:
    """Scores of a view's channels."""
    return Magnitude().scored(view, Evidence())
