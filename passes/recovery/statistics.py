"""Running statistics of batch normalisation, estimated anew where what it normalises has changed.

What the calibration inputs give in the smaller network is compared with what they give in the dense one, whose statistics are
known from its training: the mean moves by the difference of the two means, the variance is multiplied by the ratio of the two.
So inputs that are not quite those of the training do no harm of their own; in a network that did not change, nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from ...frontend.graph_module import CapturedModule
from ..plan import Plan
from ..values import Operation
from .offsets import stored_norm

__all__ = ["Norm", "norms_of"]

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
        mean, variance = _moments(values)
        dense_mean, dense_variance = (found[self.kept] for found in _moments(dense_values))
        ratio = torch.where(dense_variance > 0, variance / dense_variance, torch.ones_like(variance))
        with torch.no_grad():
            self.mean.copy_(self.dense_mean.double() + mean - dense_mean)
            self.variance.copy_(self.dense_variance.double() * ratio.clamp_min(_LEAST_RATIO))


def norms_of(small: CapturedModule, dense: fx.GraphModule, plan: Plan) -> dict[fx.Node, Norm]:
    """The batch normalisations of the smaller graph that have a twin, by their calls."""
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
        kept = plan.kept.get(str(before["running_mean"].target), {}).get(0, every)
        found[node] = Norm(
            twin,
            node.args[0],
            twin.args[0],
            kept,
            *stored,
            old_mean[kept],
            old_variance[kept],  # type: ignore[arg-type]
        )
    return found


def _moments(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of every channel (axis 1) over all calls, float64."""
    rows = torch.cat([value.transpose(0, 1).flatten(1).double() for value in values], 1)
    variance, mean = torch.var_mean(rows, 1, unbiased=False)
    return mean, variance
