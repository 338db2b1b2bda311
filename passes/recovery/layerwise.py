"""Layers that are given a structure one after the other, each nearest to what it gives in the dense network.

In the order of the graph, as in `least_squares`: every layer reads what the layers before it give that are done already, and
aims at what the same layer gives in the dense network. Layers between them that stay dense are solved anew by ridge regression,
for what they read has changed. A network's features on synthetic inputs are enough for that: whoever prunes needs neither data
nor labels (Zhan et al., 2020, "A privacy-preserving DNN pruning and mobile acceleration framework", arXiv 2003.06513).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ...frontend.base.errors import InputError
from ...frontend.base.progress import track
from ...frontend.graph_module import CapturedModule, cloned
from ...frontend.writes import written_places
from ..layers import Layer
from ..operations import operations_of
from ..rules import layer_of
from ..rules.kernel_blocks import blocks_of, stored_form
from ..structures import Structure
from ..values import Operation, attribute, shape_of
from ..weight_views import WeightView
from .carried import carried, relative
from .layer_admm import LayerAdmm, nearest_of_structure
from .least_squares import LayerRecovery, Recovery
from .offsets import offset_of
from .readers import Reader, Refusal, obstacle
from .ridge import Moments, Solved, best_ridge, solve
from .sampling import sampled
from .walk import Walk

__all__ = ["Layerwise", "felt_by_outputs", "give_structures"]

_ROWS = 10.0


@dataclass(frozen=True, eq=False)
class Layerwise:
    """What was made.

    Attributes:
        module: the network with the structures.
        masks: of the weights that have one, boolean, True where a weight stays.
        recovery: of the layers that were solved.
    """

    module: CapturedModule = field(repr=False)
    masks: Mapping[str, Tensor] = field(repr=False)
    recovery: Recovery


def give_structures(
    dense: CapturedModule,
    taken: Mapping[WeightView, tuple[Structure, float]],
    calls: Sequence[tuple[Any, ...]],
    how: LayerAdmm,
    seed: int = 0,
) -> Layerwise:
    """A copy of a canonical module whose weights have structures.

    A weight that cannot be solved, such as a recurrent layer's, becomes the nearest to itself.

    Args:
        dense: left as it was.
        taken: the structure of each weight, fitted, and its share of zeros.
        calls: calibration inputs: the positional inputs of every call.
        how: options.
        seed: of the output positions that are drawn.

    Raises:
        InputError: the network keeps state from call to call.
    """
    began = time.perf_counter()
    for place in written_places(dense.graph):
        raise InputError(f"layers are solved in networks without state, and this one writes to '{place.target}'")
    work = _Work(dense, cloned(dense), {view.name: (view, *asked) for view, asked in taken.items()})
    readers = work.readers()
    for name in work.taken.keys() - {reader.name for reader in readers.values()}:
        work.project(name)
    solving = _Solving(Walk(dense, calls), Walk(work.small, calls), how, torch.Generator().manual_seed(seed))
    after = work.after_structures()
    nodes = [node for node, reader in readers.items() if reader.name in work.taken or reader.layer.source in after]
    for node in track(nodes, "solving layers"):
        work.solve(readers[node], solving)
    seconds = time.perf_counter() - began
    refusals = tuple(dict.fromkeys(work.refusals))
    return Layerwise(work.small, work.masks, Recovery("", tuple(work.done), refusals, seconds))


def felt_by_outputs(
    dense: CapturedModule, names: Sequence[str], calls: Sequence[tuple[Any, ...]], seed: int = 0
) -> dict[str, Tensor]:
    """Weights of a canonical module by what its layers' outputs lose with each, see `carried`."""
    readers = _Work(dense, dense, {}).readers()
    known = carried(dense, readers, calls, seed)
    return {name: known[name] if name in known else relative(attribute(dense, name).detach()) for name in names}


@dataclass(eq=False)
class _Work:
    """A network under way, and what was done to it."""

    dense: CapturedModule
    small: CapturedModule
    taken: Mapping[str, tuple[WeightView, Structure, float]]
    masks: dict[str, Tensor] = field(default_factory=dict)
    done: list[LayerRecovery] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def readers(self) -> dict[fx.Node, Reader]:
        """The calls of layers that can be solved; why others cannot is noted."""
        twins = {node.name: node for node in self.dense.graph.nodes}
        found = {}
        for op in operations_of(self.small).values():
            layer = layer_of(op)
            if layer is not None:
                reader = self._reader(op, layer, twins[op.node.name])
                if isinstance(reader, Reader):
                    found[op.node] = reader
                else:
                    self.refusals.append(str(reader))
        return found

    def after_structures(self) -> set[fx.Node]:
        """The values that a weight with a structure has a part in."""
        reached: set[fx.Node] = set()
        for node in self.small.graph.nodes:
            own = node.op == "get_attr" and str(node.target) in self.taken
            if own or not reached.isdisjoint(node.all_input_nodes):
                reached.add(node)
        return reached

    def project(self, name: str) -> None:
        """Takes a weight to the nearest one with its structure."""
        view, structure, share = self.taken[name]
        weight: Tensor = attribute(self.small, name)
        seen = view.seen(weight.detach())
        mask = structure.mask(structure.energy(seen), share)
        with torch.no_grad():
            weight.copy_(view.stored(structure.applied(seen, mask)))
        self.masks[name] = view.stored(mask)

    def solve(self, reader: Reader, solving: _Solving) -> None:
        """Sets a layer's weights and offset; where that cannot be done, a weight with a structure becomes the nearest one."""
        asked = self.taken.get(reader.name)
        outcome = solving.solve(reader, asked)
        if isinstance(outcome, Refusal):
            self.refusals.append(str(outcome))
            if asked is not None:
                self.project(reader.name)
            return
        recovery, mask = outcome
        self.done.append(recovery)
        if asked is not None and mask is not None:
            self.masks[reader.name] = asked[0].stored(mask)

    def _reader(self, op: Operation, layer: Layer, twin: fx.Node) -> Reader | Refusal:
        name = str(layer.weight.target) if layer.weight.op == "get_attr" else op.node.name
        if reason := obstacle(op, layer, twin):
            return Refusal(name, reason)
        offset = offset_of(self.small, op, layer)
        if isinstance(offset, str):
            return Refusal(name, offset)
        kept = torch.arange(shape_of(twin)[layer.axis])
        return Reader(op, layer, attribute(self.small, name), twin, kept, offset)


@dataclass(frozen=True, eq=False)
class _Solving:
    """Both networks, at the same place."""

    dense: Walk
    small: Walk
    how: LayerAdmm
    generator: torch.Generator

    def solve(
        self, reader: Reader, asked: tuple[WeightView, Structure, float] | None
    ) -> tuple[LayerRecovery, Tensor | None] | Refusal:
        """Sets the layer's weights and offset in place; gives the mask of filters x channels x kernel if it has a structure."""
        halves = self._moments(reader)
        moments = halves[0] + halves[1]
        if not moments.rows or not moments.finite:
            return Refusal(reader.name, "its values on the calibration inputs are not finite, or there are none")
        old = blocks_of(reader.weight.detach(), reader.layer).flatten(2).double()
        zeros = old.new_zeros(old.shape[:2])
        offset = zeros if reader.offset is None else reader.offset.value().reshape(zeros.shape)
        if asked is None:
            ridge = best_ridge(halves, old) if halves[0].rows and halves[1].rows else 1.0
            found, left, mask = solve(moments, old, ridge), old, None
        else:
            view, structure, share = asked
            ridge = self.how.ridge
            nearest = nearest_of_structure(moments, old, structure, share, view.shape, self.how)
            found, mask = Solved(nearest.weight, nearest.bias), nearest.mask
            left = _left_by_magnitude(old, asked)
        before, after = moments.error(left, offset), moments.error(found.weight, found.bias)
        kernel = found.weight.reshape(*old.shape[:2], -1, max(1, math.prod(reader.layer.taps)))
        with torch.no_grad():
            reader.weight.copy_(stored_form(kernel, reader.layer))
        if reader.offset is not None:
            reader.offset.set(found.bias.reshape(-1))
        return LayerRecovery(reader.name, reader.columns, moments.rows, ridge, before, after), mask

    def _moments(self, reader: Reader) -> tuple[Moments, Moments]:
        """Of what the layer reads in the network with structures, and gives in the dense one, in two halves of the inputs."""
        self.dense.past(reader.twin)
        self.small.before(reader.op.node)
        values = self.small.values(reader.layer.source), self.dense.values(reader.twin)
        return sampled(reader.op, reader.layer, values, _ROWS, self.generator, centred=reader.offset is not None)


def _left_by_magnitude(old: Tensor, asked: tuple[WeightView, Structure, float]) -> Tensor:
    """The nearest to the old weights themselves, for comparison."""
    view, structure, share = asked
    seen = old.reshape(view.shape.filters, view.shape.channels, *view.shape.taps)
    return structure.applied(seen, structure.mask(structure.energy(seen), share)).reshape(old.shape)
