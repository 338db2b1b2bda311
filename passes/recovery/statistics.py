"""Running statistics of batch normalisation, estimated anew where what it normalises has changed.

What the calibration inputs give in the smaller network is compared with what they give in the dense one, whose statistics are
known from its training: the mean moves by the difference of the two means, the variance is multiplied by the ratio of the two.
So inputs that are not quite those of the training do no harm of their own; in a network that did not change, nothing changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ...frontend.graph_module import CapturedModule
from ..values import Operation
from .offsets import stored_norm

__all__ = ["Moments", "Norm", "moments_of", "norms_of"]

Moments = tuple[Tensor, Tensor]
"""Mean and variance of every channel."""

_LEAST_RATIO = 0.01
"""The variance is not divided by more than a hundred: what hardly varies any more is not blown up."""


@dataclass(frozen=True, eq=False)
class Norm:
    """A batch normalisation by stored statistics in the smaller graph.

    Attributes:
        twin: the same call in the dense graph.
        source: what it normalises in the smaller graph.
        twin_source: the same in the dense graph.
        kept: its channels, as positions in the dense graph.
        mean: stored in the smaller graph, as is `variance`.
        dense_mean: in the dense graph, of the channels that stay, as is `dense_variance`.
    """

    twin: fx.Node
    source: fx.Node
    twin_source: fx.Node
    kept: Tensor
    mean: Tensor
    variance: Tensor
    dense_mean: Tensor
    dense_variance: Tensor

    def estimate(self, values: Sequence[Tensor], dense_values: Sequence[Tensor]) -> None:
        """Sets the stored statistics, in place, from what is normalised in all calls."""
        dense_mean, dense_variance = moments_of(dense_values)
        self.moved(moments_of(values), (dense_mean[self.kept], dense_variance[self.kept]))

    def moved(self, found: Moments, dense: Moments) -> None:
        """Sets the stored statistics, in place, from the moments of what is normalised, here and in the dense graph."""
        (mean, variance), (dense_mean, dense_variance) = found, dense
        ratio = torch.where(dense_variance > 0, variance / dense_variance, torch.ones_like(variance))
        with torch.no_grad():
            self.mean.copy_(self.dense_mean.double() + mean - dense_mean)
            self.variance.copy_(self.dense_variance.double() * ratio.clamp_min(_LEAST_RATIO))


def norms_of(
    small: CapturedModule, dense: fx.GraphModule, kept: Mapping[str, Mapping[int, Tensor]]
) -> dict[fx.Node, Norm]:
    """The batch normalisations of the smaller graph that have a twin, by their calls.

    `kept`: the positions along an axis of a tensor that are left, see `Plan.kept`; all of those that are not in it.
    """
    twins = {node.name: node for node in dense.graph.nodes}
    found: dict[fx.Node, Norm] = {}
    for node in small.graph.nodes:
        stored = stored_norm(node, small) if node.op == "call_function" else None
        twin = twins.get(node.name)
        if stored is None or twin is None:
            continue
        before = Operation(twin, dense)
        old_mean, old_variance = before.tensor("running_mean"), before.tensor("running_var")
        if old_mean is None or old_variance is None:
            continue
        every = torch.arange(len(old_mean))
        left = kept.get(str(before["running_mean"].target), {}).get(0, every)
        found[node] = Norm(
            twin,
            node.args[0],
            twin.args[0],
            left,
            *stored,
            old_mean[left],
            old_variance[left],  # type: ignore[arg-type]
        )
    return found


def moments_of(values: Sequence[Tensor]) -> Moments:
    """Mean and variance of every channel (axis 1) over all calls, float64."""
    counts = torch.tensor([value.numel() // value.shape[1] for value in values], dtype=torch.float64)
    found = [torch.var_mean(value, [0, *range(2, value.dim())], unbiased=False) for value in values]
    shares = (counts / counts.sum())[:, None]
    variances, means = (torch.stack([pair[place].double().cpu() for pair in found]) for place in (0, 1))
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0)
