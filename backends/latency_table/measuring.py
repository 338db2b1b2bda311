"""What layers take with zeros of a structure: the kernels that `compile` would choose for them, priced one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...passes.structures import Structure
from ...passes.weight_views import WeightView
from ..choosing.cache import ChoiceCache
from ..choosing.choice import Winograd, choose
from ..choosing.cost import AnalyticCost, Costs
from ..choosing.layer_choices import names_of_weights
from ..choosing.width import fitting_plan
from ..graph.fusion import group_nodes
from ..graph.nodes import Array, Convolution, Graph, Node
from ..graph.read import read_relax
from ..importing.importer import Imported
from ..kernels.base import LayerSpec
from ..kernels.planes import is_planes
from ..kernels.tiles import Machine
from ..lowering.plan import make_plan, may_lie_in_planes
from ..lowering.steps import KernelPlan
from ..pipeline import prepare
from .forms import Form, forms_of

__all__ = ["Call", "LayerTime", "Measuring"]

Call = tuple[str, int]
"""A call of a layer: the name of its weight, and its number among the calls of that weight."""


@dataclass(frozen=True)
class LayerTime:
    """What one call of a layer takes.

    Attributes:
        time: in the unit of who told it.
        kernel: the family of its kernel.
        planes: whether its images lie in planes, else in blocks of channels.
    """

    time: float
    kernel: str
    planes: bool = False


class Measuring:
    """The layers of a network, alone: in blocks and in planes, the faster of the two, without what lays images out anew.

    Which weights are zero is drawn at random from a fixed seed. Kernels are given what is typical of so many zeros in such a
    structure, and not the network's own.
    """

    def __init__(
        self,
        imported: Imported,
        machine: Machine,
        winograd: Winograd,
        cost: Costs | None = None,
        cache: ChoiceCache | None = None,
    ) -> None:
        """`cost` tells what kernels take; None for the cost model, for the width of blocks that the dense network has."""
        self._imported, self._winograd, self._cache = imported.module, winograd, cache
        self._weights = {name: weight for name, weight in imported.weights.items() if weight.ndim > 1}
        self.machine = machine
        graph, names = self._read({})
        plan = fitting_plan(graph, machine, winograd)
        self.machine = plan.machine
        self._cost = cost or AnalyticCost(self.machine)
        self.forms = forms_of(plan, names)
        """Of every call of every convolution and linear layer that has a kernel of ours, by the name of the weight."""

    def dense(self, calls: Mapping[Form, Call]) -> dict[Form, LayerTime]:
        """What calls of these forms take without any zeros."""
        return self._priced(calls, {name: np.ones((), dtype=bool) for name, _ in calls.values()}, in_planes=False)

    def sparse(
        self, calls: Mapping[Form, Call], views: Mapping[str, WeightView], structure: Structure, share: float
    ) -> dict[Form, LayerTime]:
        """What they take with a share of zeros of a structure, which fits each."""
        masks = {name: _mask(views[name], structure, share) for name, _ in calls.values()}
        return self._priced(calls, masks, in_planes=True)

    def _read(self, masks: Mapping[str, Array]) -> tuple[Graph, dict[Node, str]]:
        graph = read_relax(self._imported)
        names = names_of_weights(graph, self._weights)
        given = {name: _drawn(self._weights[name].shape) * mask for name, mask in masks.items()}
        for node, name in names.items():
            if name in given:
                convolution = node.detail_as(Convolution)
                kernel = given[name].reshape(convolution.weights.kernel.shape)
                convolution.weights = replace(convolution.weights, kernel=kernel)
        prepare(graph, self.machine)
        return graph, names

    def _priced(self, calls: Mapping[Form, Call], masks: Mapping[str, Array], in_planes: bool) -> dict[Form, LayerTime]:
        graph, names = self._read(masks)
        blocks = make_plan(graph, self.machine)
        nodes = _nodes(blocks, names)
        wanted = {form: nodes[name][number] for form, (name, number) in calls.items()}
        plans = [blocks]
        if in_planes:
            anchors = set(wanted.values())
            able = [g.sink for g in group_nodes(graph) if g.anchor in anchors and may_lie_in_planes(g, self.machine)]
            plans += [make_plan(graph, self.machine, able)] if able else []
        layers = [
            {step.node: (step.layer, planes) for step in plan.kernels if step.layer is not None}
            for plan, planes in zip(plans, (False, True), strict=False)
        ]
        found = {form: [own[node] for own in layers] for form, node in wanted.items()}
        tasks = [layer.task for row in found.values() for layer, _ in row if layer.task is not None]
        chosen = choose(tasks, self.machine, self._winograd, self._cost, self._cache)
        specs = {
            form: {layer.chosen(chosen): planes and is_planes(layer.spec.result) for layer, planes in row}
            for form, row in found.items()
        }
        # Kernels that compute the same are judged together: a machine has other work from moment to moment.
        groups = list(dict.fromkeys(tuple(options) for options in specs.values()))
        prices = dict(zip(groups, self._cost(groups), strict=True))
        return {form: _best(options, prices[tuple(options)]) for form, options in specs.items()}


def _best(options: Mapping[LayerSpec, bool], prices: Sequence[float]) -> LayerTime:
    """The cheapest of kernels, of which it is said whether they compute in planes."""
    time, _, spec = min((time, place, spec) for place, (time, spec) in enumerate(zip(prices, options, strict=True)))
    return LayerTime(float(time), spec.family, options[spec])


def _nodes(plan: KernelPlan, names: Mapping[Node, str]) -> dict[str, list[Node]]:
    """Of every weight, the calls in their order."""
    found: dict[str, list[Node]] = {}
    for step in plan.kernels:
        if step.layer is not None and step.node in names:
            found.setdefault(names[step.node], []).append(step.node)
    return found


def _mask(view: WeightView, structure: Structure, share: float) -> Array:
    """Of the stored weight, True where one stays."""
    scores = torch.from_numpy(_drawn((view.shape.filters, view.shape.channels, *view.shape.taps))).square()
    mask: Array = view.stored(structure.fitted([scores]).mask(scores, share)).numpy()
    return mask


def _drawn(shape: tuple[int, ...]) -> Array:
    """Weights without a zero."""
    drawn: Array = np.random.default_rng(0).standard_normal(shape)
    return drawn
