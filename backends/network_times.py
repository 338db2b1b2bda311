"""Times of a whole network whose weights have zeros, for pruning that aims at latency.

A kernel that skips zeros may want the images of its neighbours in its own order, so that a layer's time is not its own affair.
What `compile` would plan is planned for every set of masks, with its ways of laying images out anew, and nothing is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, fx

from ..passes.pruning.zeros_latency import NetworkTime
from .choosing.cost import AnalyticCost
from .choosing.layer_choices import names_of_weights
from .choosing.layouts import plan_layouts
from .choosing.width import fitting_plan
from .compile import imported_module
from .graph.nodes import Convolution, Node
from .graph.read import read_relax
from .importing.importer import Imported
from .judges import winograd_for
from .lowering.steps import Choice, KernelPlan
from .machines.targets import Target, find_target
from .pipeline import prepare

__all__ = ["NetworkCycles", "network_cycles"]


class NetworkCycles:
    """Cycles of one pass on one core by the cost model, for the kernels that `compile` would choose by it.

    What has no kernel of ours is not counted, with zeros and without.
    """

    def __init__(self, imported: Imported, target: Target) -> None:
        self._imported, self._weights, self._target = imported.module, imported.weights, target

    def __call__(self, masks: Mapping[str, Tensor]) -> NetworkTime:
        """With zeros where `masks` are False, by the name of the weight."""
        graph = read_relax(self._imported)
        names = names_of_weights(graph, self._weights)
        for node, name in names.items():
            if name in masks:
                _mask(node.detail_as(Convolution), masks[name])
        prepare(graph)
        machine, winograd = self._target.machine, winograd_for(self._target)
        plan, choice = plan_layouts(fitting_plan(graph, machine, winograd), winograd, AnalyticCost(machine))
        return _time(plan, choice, names)


def network_cycles(module: fx.GraphModule, inputs: tuple[Any, ...], target: str | Target) -> NetworkCycles:
    """For a captured module, called with `inputs`. `module` names weights as pruning does: it must be canonical.

    Raises:
        CaptureError: it cannot be compiled.
        InputError: there is no such target.
    """
    found = find_target(target)
    return NetworkCycles(imported_module(module, inputs), found)


def _mask(convolution: Convolution, mask: Tensor) -> None:
    weights = convolution.weights
    kept = mask.cpu().numpy().reshape(weights.kernel.shape)
    convolution.weights = replace(weights, kernel=weights.kernel * kept)


def _time(plan: KernelPlan, choice: Choice, names: Mapping[Node, str]) -> NetworkTime:
    total, layers = 0.0, dict[str, float]()
    for step in plan.kernels:
        spec = step.spec if step.layer is None else step.layer.chosen(choice)
        cycles = spec.cycles(plan.machine)
        total += cycles
        if step.layer is not None and step.node in names:
            name = names[step.node]
            layers[name] = layers.get(name, 0.0) + cycles
    return NetworkTime(total, layers)
