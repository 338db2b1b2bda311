"""Networks with zeros that nobody has trained yet: how far their outputs are from the dense network's, without labels.

Batch normalisation by statistics of the dense network says little of what a training will make of a network with zeros, since
the first steps of any training set them right. So they are estimated anew before anything is judged, as Li et al., 2020
("EagleEye: fast sub-net evaluation for efficient neural network pruning", arXiv 2007.02491) found to tell candidates apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...frontend.base.errors import InputError
from ...frontend.graph_module import CapturedModule, cloned
from ...frontend.writes import written_places
from ..memory_order import arrange, best_order
from ..values import Operation, attribute
from .statistics import moments_of, norms_of
from .walk import Walk

__all__ = ["Untrained"]


class Untrained:
    """A copy of a network, with zeros for as long as something is asked of it."""

    def __init__(self, dense: CapturedModule, calls: Sequence[tuple[Any, ...]]) -> None:
        """Args:
        dense: canonical; left as it is.
        calls: calibration inputs: the positional inputs of every call.

        Raises:
            InputError: the network keeps state from call to call, or its outputs on these are no finite numbers.
        """
        for place in written_places(dense.graph):
            raise InputError(f"only networks without state can be tried so, and this one writes to '{place.target}'")
        self._module = cloned(dense)
        order = best_order(self._module)
        arrange(self._module, order)
        self._calls = [
            pytree.tree_map_only(
                Tensor, lambda leaf: leaf.contiguous(memory_format=order) if leaf.dim() == 4 else leaf, tuple(call)
            )
            for call in calls
        ]
        self._norms = norms_of(self._module, self._module, {})
        walk = Walk(self._module, self._calls)
        self._seen = {}
        for node, norm in self._norms.items():
            walk.before(node)
            self._seen[node] = moments_of(walk.values(norm.source))
        self._outputs = _outputs(walk, self._module)
        if not self._outputs or not all(bool(output.isfinite().all()) for output in self._outputs):
            raise InputError("the network's outputs on the calibration inputs are no finite numbers; give other inputs")

    def error(self, masks: Mapping[str, Tensor]) -> float:
        """The squared error of an output over the sum of its squares, on the mean of all outputs. Statistics are estimated
        anew. Masks are by parameter name, True where a weight stays.
        """
        with self._masked(masks):
            found = _outputs(self._estimated(), self._module)
        errors = [_relative(output, dense) for output, dense in zip(found, self._outputs, strict=True)]
        return sum(errors) / len(errors)

    def statistics(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The statistics of batch normalisation with these zeros, by the names of the stored tensors."""
        with self._masked(masks):
            self._estimated()
            return {name: attribute(self._module, name).detach().clone() for name in self._statistics}

    @property
    def _statistics(self) -> tuple[str, ...]:
        calls = [Operation(node, self._module) for node in self._norms]
        return tuple(str(call[name].target) for call in calls for name in ("running_mean", "running_var"))

    def _estimated(self) -> Walk:
        """A run up to behind the last normalisation."""
        walk = Walk(self._module, self._calls)
        for node, norm in self._norms.items():
            walk.before(node)
            norm.moved(moments_of(walk.values(norm.source)), self._seen[node])
        return walk

    @contextmanager
    def _masked(self, masks: Mapping[str, Tensor]) -> Iterator[None]:
        names = (*masks, *self._statistics)
        before = {name: attribute(self._module, name).detach().clone() for name in names}
        try:
            for name, mask in masks.items():
                attribute(self._module, name).detach().mul_(mask)
            yield
        finally:
            for name, value in before.items():
                attribute(self._module, name).detach().copy_(value)


def _outputs(walk: Walk, module: CapturedModule) -> list[Tensor]:
    """Every output that is of numbers, over all calls."""
    node = module.graph.output_node()
    walk.past(node)
    leaves = zip(*(pytree.tree_leaves(found) for found in walk.values(node)), strict=True)
    some = [entry for entry in leaves if all(isinstance(one, Tensor) and one.is_floating_point() for one in entry)]
    return [torch.cat([one.reshape(-1) for one in entry]).double() for entry in some]


def _relative(found: Tensor, dense: Tensor) -> float:
    there = dense.square().sum().clamp_min(torch.finfo(dense.dtype).tiny)
    return float((found - dense).square().sum() / there)
