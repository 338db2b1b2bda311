"""Inputs that give the statistics of the training data: every batch normalisation remembers mean and variance of its channels.

Yin et al., 2020 ("Dreaming to distill: data-free knowledge transfer via DeepInversion", arXiv 1912.08795) and Cai et al., 2020
(ZeroQ, arXiv 2001.00281) draw inputs by gradient descent until what the normalisations see has the statistics that they store.
The loss is the divergence of normal distributions, Kullback and Leibler's, of batch from stored ones,

    mean over channels of  (v / s + (m - u)^2 / s - 1 - log(v / s)) / 2,  summed over normalisations,

with m, v the batch's mean and variance and u, s the stored ones, each variance plus the normalisation's epsilon. Weights are
not touched, and nothing is known of the data but what the network itself stores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule
from ..memory_order import best_order
from ..values import Operation, operator_name

__all__ = ["divergence", "matched", "norms_with_statistics"]

_RATE = 0.1
"""Of Adam's first steps, as a share of the inputs' deviation."""
_SHIFT = 14
"""Images are moved by up to a part of their side in every step, so that no pattern is tied to its place."""


def norms_with_statistics(module: CapturedModule) -> dict[fx.Node, tuple[Tensor, Tensor, float]]:
    """Batch normalisations by stored statistics: mean, variance and epsilon by call."""
    found: dict[fx.Node, tuple[Tensor, Tensor, float]] = {}
    for node in module.graph.nodes:
        if operator_name(node) == "aten.batch_norm":
            norm = Operation(node, module)
            mean, variance = norm.tensor("running_mean"), norm.tensor("running_var")
            if not norm["training"] and mean is not None and variance is not None:
                found[node] = mean, variance, float(norm["eps"])
    return found


def divergence(module: CapturedModule, inputs: Sequence[Any]) -> float:
    """How far the statistics of a batch are from the stored ones, summed over all normalisations."""
    with torch.no_grad():
        return float(_Matching(module).loss(inputs))


def matched(module: CapturedModule, inputs: Sequence[Tensor], steps: int, seed: int = 0) -> list[Tensor]:
    """Inputs with the stored statistics, drawn from `inputs` by Adam (Kingma and Ba, 2015) with a rate that falls as a cosine.

    Args:
        module: canonical, with batch normalisation by stored statistics.
        inputs: of one call, flattened; those of floating point are changed, in copies.
        steps: of gradient descent.
        seed: of how images are moved.
    """
    generator = torch.Generator().manual_seed(seed)
    matching = _Matching(module)
    # Convolutions of the processor are several times faster channels last, which not every view of a value allows.
    order = best_order(module)
    if not _runs(matching, [_ordered(value, order) for value in inputs]):
        order = torch.contiguous_format
    leaves = [_ordered(value, order).requires_grad_(value.is_floating_point()) for value in inputs]
    free = [value for value in leaves if value.requires_grad]
    groups = [{"params": [value], "lr": _RATE * float(value.detach().std())} for value in free]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps))
    for _ in track(range(steps), "drawing inputs that match the stored statistics"):
        optimizer.zero_grad()
        matching.loss([_moved(value, generator) if value.requires_grad else value for value in leaves]).backward()
        optimizer.step()
        schedule.step()
    return [value.detach().contiguous() for value in leaves]


def _ordered(value: Tensor, order: torch.memory_format) -> Tensor:
    """A copy of an input; of images, with the numbers in another order in memory."""
    return value.detach().clone(memory_format=order if value.dim() == 4 else torch.contiguous_format)


def _runs(matching: _Matching, inputs: Sequence[Tensor]) -> bool:
    try:
        with torch.no_grad():
            matching.loss(inputs)
    except RuntimeError:
        return False
    return True


def _moved(value: Tensor, generator: torch.Generator) -> Tensor:
    """An image moved along its edges, which follow each other, and half of the times mirrored."""
    axes = tuple(range(2, value.dim()))
    reach = [value.shape[axis] // _SHIFT for axis in axes]
    shifts = [int(torch.randint(-most, most + 1, (1,), generator=generator)) for most in reach]
    moved = value.roll(shifts, axes) if axes else value
    return moved.flip(-1) if axes and bool(torch.rand(1, generator=generator) < 0.5) else moved


class _Matching(fx.Interpreter):
    """Runs a graph up to its last normalisation, and sums what these say."""

    def __init__(self, module: CapturedModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self._norms = norms_with_statistics(module)
        self._last = list(self._norms)[-1]

    def loss(self, inputs: Sequence[Any]) -> Tensor:
        self.env, self.args_iter = {}, iter(inputs)
        terms = []
        for node in self.graph.nodes:
            if node in self._norms:
                terms.append(_term(self.env[node.args[0]], *self._norms[node]))
            if node is self._last:
                break
            self.env[node] = self.run_node(node)
            for read in self.user_to_last_uses.get(node, ()):
                del self.env[read]
        self.env = {}
        return torch.stack(terms).sum()

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        value = super().get_attr(target, args, kwargs)
        return value.detach() if isinstance(value, Tensor) else value


def _term(value: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    found, spread = _Moments.apply(value)
    ratio = (spread + epsilon) / (variance + epsilon)
    term: Tensor = ((ratio + (found - mean).square() / (variance + epsilon) - 1 - ratio.log()) / 2).mean()
    return term


class _Moments(torch.autograd.Function):
    """Mean and variance of every channel: several times faster than ``torch.var_mean``, with its gradient in less memory."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> tuple[Tensor, Tensor]:
        rows = value.movedim(1, -1).reshape(-1, value.shape[1])
        ones = rows.new_ones(1, len(rows))
        mean = (ones @ rows)[0] / len(rows)
        ctx.save_for_backward(value, mean)
        return mean, ((ones @ rows.square())[0] / len(rows) - mean.square()).clamp_min(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (value, mean), (by_mean, by_variance) = ctx.saved_tensors, gradients
        number = value.numel() // value.shape[1]
        shape = (-1, *(1,) * (value.dim() - 2))
        slope = (2 * by_variance / number).reshape(shape)
        return torch.addcmul(((by_mean - 2 * by_variance * mean) / number).reshape(shape), value, slope)
