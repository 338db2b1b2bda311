"""Networks without some of their channels: what makes these is all zero, so that a removal afterwards is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule
from ..canonicalize import canonicalize
from ..dependency import DependencyView, dependency_view
from ..groups import ChannelGroup, Slices
from ..masks import check_finite
from .channels import score
from .constraints import Constraint, Values
from .decisions import Decision, Scored, Widths, allot, masks_of
from .trial import tried

__all__ = ["WholeChannels"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WholeChannels(Constraint):
    """Channel groups that lose a share of their channels: all that makes a channel is zero, weights, biases and normalisation.

    The nearest network keeps the channels of which the norm of all that makes them is largest. `groups` are those of DepGraph's
    sparse learning (Fang et al., 2023, arXiv 2301.12900): a channel is all that makes and all that reads it, in every layer
    that it goes through.

    Attributes:
        view: of the network.
        scored: which groups may lose channels, and what holds the others.
        share: of channels that go.
        widths: how it is spread over the groups, and what their widths are rounded to.
        left: one line for every group that loses none, because its channels would stay.
        parameters: of the module that is trained.
    """

    view: DependencyView
    scored: Scored
    share: float
    widths: Widths
    left: tuple[str, ...] = ()
    parameters: frozenset[str] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, module: CapturedModule, share: float, widths: Widths) -> WholeChannels:
        """For a captured module. Groups of which channels would not go when they are zero, which is tried, lose none.

        Raises:
            InputError: a pattern matches nothing, no group can lose channels, or weights are not finite.
        """
        view = dependency_view(canonicalize(module))
        check_finite(view.module)
        parameters = dict(module.named_parameters())
        found = score(view, lambda groups: _norms(groups, parameters), widths.ignore)
        computed = {
            group: f"'{name}', which makes its channels, is not trained"
            for group in found.scores
            for name in _makers(group)
            if name not in parameters
        }
        found = found.without(computed)
        trial = tried(module, view, allot(view, found, share, widths), widths.step)
        reasons = {decision.group: "; ".join(decision.reasons) for decision in trial.decisions}
        found = found.without({group: reasons[group] for group in trial.withheld})
        if not found.scores:
            held = "; ".join(dict.fromkeys(found.held.values())) or "all are left alone by ignore"
            raise InputError(f"no channel of this model could be removed: {held}")
        left = tuple(f"{group.name} keeps its channels: {reason}" for group, reason in found.held.items())
        return cls(view, found, share, widths, left, frozenset(parameters))

    @property
    def losing(self) -> tuple[ChannelGroup, ...]:
        """The groups that may lose channels."""
        return tuple(self.scored.scores)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for group in self.losing for name in _makers(group)))

    @property
    def read(self) -> tuple[str, ...]:
        touched = (part.parameter for group in self.losing for part in group.slices)
        return tuple(dict.fromkeys(name for name in touched if name in self.parameters))

    def masks(self, values: Values, done: float = 1.0) -> dict[str, Tensor]:
        scored = Scored(_norms(self.losing, values), self.scored.ignored, self.scored.held)
        return self._without(allot(self.view, scored, self.share * done, self.widths), values)

    def held(self, values: Values, masks: Values) -> dict[str, Tensor]:
        return {name: values[name] * masks[name] for name in self.names}

    def support(self, values: Values) -> dict[str, Tensor]:
        """All that makes a channel that is not zero stays, its own zeros, too."""
        norms = _norms(self.losing, values)
        return self._without([Decision(group, 0, norm == 0, ()) for group, norm in norms.items()], values)

    def groups(self, values: Values) -> dict[str, tuple[Tensor, ...]]:
        read = set(self.read)
        return {
            group.name: (_summed([part for part in group.slices if part.parameter in read], values, group.size),)
            for group in self.losing
        }

    def sparsity(self, values: Values) -> float:
        norms = _norms(self.losing, values).values()
        return float(sum((norm == 0).sum() for norm in norms) / sum(len(norm) for norm in norms))

    def _without(self, decisions: Sequence[Decision], values: Values) -> dict[str, Tensor]:
        """The masks of all parameters that decisions are about, on their devices."""
        cut = masks_of(self.view, decisions)
        return {
            name: cut[name].to(values[name].device) if name in cut else torch.ones_like(values[name], dtype=torch.bool)
            for name in self.names
        }


def _makers(group: ChannelGroup) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.parameter for part in group.slices if part.role == "producer"))


def _norms(groups: Sequence[ChannelGroup], values: Values) -> dict[ChannelGroup, Floats]:
    """The norm of all that makes a channel, for every channel of some groups."""
    return {
        group: _summed([part for part in group.slices if part.role == "producer"], values, group.size)
        .detach()
        .double()
        .sqrt()
        .cpu()
        .numpy()
        for group in groups
    }


def _summed(parts: Sequence[Slices], values: Values, channels: int) -> Tensor:
    """The squares of all entries of some slices, summed by channel."""
    total = values[parts[0].parameter].new_zeros(channels)
    for part in parts:
        value = values[part.parameter]
        by_position = value.square().transpose(0, part.axis).flatten(1).sum(1) if value.dim() > 1 else value.square()
        # A position of -1, for none, is that of the zero behind the last.
        padded = torch.cat([by_position, by_position.new_zeros(1)])
        total = total + padded[torch.from_numpy(part.positions).to(value.device)].sum(1)
    return total
