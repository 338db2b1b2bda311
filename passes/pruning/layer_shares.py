"""Shares of single layers against the groups of channels that these make: which cannot be had, which go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from ...frontend.base.errors import InputError
from ..dependency import DependencyView
from ..groups import ChannelGroup
from .decisions import Scored, Widths, ignored_by

__all__ = ["SharesTold", "told_of_shares"]


@dataclass(frozen=True)
class SharesTold:
    """What whoever gave shares of single layers must hear."""

    refusals: tuple[str, ...] = ()
    """Patterns of which no layer can lose a channel, with the reason."""
    notes: tuple[str, ...] = ()
    """Layers that lose another share than was said of them, since they make the same channels as another."""


def told_of_shares(view: DependencyView, scored: Scored, widths: Widths) -> SharesTold:
    """What the groups of `view` make of `widths.shares`.

    Raises:
        InputError: layers that make the same channels were given different shares, each by its name.
    """
    refusals = [told for pattern, _ in widths.shares if (told := _refusal(view, scored, pattern))]
    notes = [note for group in view.groups if group in scored.scores for note in _shared(view, group, widths.shares)]
    return SharesTold(tuple(refusals), tuple(dict.fromkeys(notes)))


def _refusal(view: DependencyView, scored: Scored, pattern: str) -> str | None:
    """Why no layer of a pattern loses anything; None where some may."""
    matched = [group for group in view.groups if ignored_by(group, [pattern])]
    if not matched or any(group in scored.scores for group in matched):
        return None
    reasons = dict.fromkeys(scored.reason(group) for group in matched)
    return f"'{pattern}' loses no channels: {'; '.join(reasons)}"


def _shared(view: DependencyView, group: ChannelGroup, shares: Sequence[tuple[str, float]]) -> list[str]:
    """What layers that make one group's channels lose against what was said of them."""
    makers = _makers(group)
    said = {layer: _first(names, shares) for layer, names in makers.items()}
    named = {layer: rule[1] for layer, rule in said.items() if rule and rule[0] in makers[layer]}
    if len(set(named.values())) > 1:
        told = ", ".join(f"{share:g} of '{layer}'" for layer, share in named.items())
        raise InputError(
            f"the layers {_listed(named)} make the same channels, and were given {told}; give them one share"
        )
    together = _first([name for names in makers.values() for name in names], shares)
    if together is None:
        return []
    taken = together[1]
    as_said = _listed([layer for layer, rule in said.items() if rule and rule[1] == taken])
    notes = []
    for layer, rule in said.items():
        # A normalisation goes with its convolution; nobody asks that.
        matters = layer in named or not view.layers.keys().isdisjoint(makers[layer])
        if matters and (rule is None or rule[1] != taken):
            than = "" if rule is None else f" rather than {rule[1]:g}"
            notes.append(f"'{layer}' loses {taken:g} of its channels{than}: they are those of {as_said}")
    return notes


def _makers(group: ChannelGroup) -> dict[str, list[str]]:
    """By layer that makes the channels, its name and its parameters'."""
    found: dict[str, list[str]] = {}
    for part in group.slices:
        if part.role == "producer":
            layer = part.parameter.rpartition(".")[0] or part.parameter
            found.setdefault(layer, [layer]).append(part.parameter)
    return found


def _first(names: Sequence[str], shares: Sequence[tuple[str, float]]) -> tuple[str, float] | None:
    return next((rule for rule in shares if any(fnmatch(name, rule[0]) for name in names)), None)


def _listed(layers: Sequence[str] | dict[str, float]) -> str:
    return ", ".join(f"'{layer}'" for layer in layers)
