"""Times of a whole network whose weights have zeros, for pruning that aims at latency.

A kernel that skips zeros may want the images of its neighbours in its own order, so that a layer's time is not its own affair.
What `compile` would plan by the cost model is planned for every set of masks, with its ways of laying images out anew. Nothing
is built but the kernels of a plan, one by one, where more than the formula is to tell what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tvm
from torch import Tensor, fx

from ..frontend.base.errors import InputError
from ..passes.pruning.zeros_latency import NetworkTime
from .choosing.cost import AnalyticCost, Costs
from .choosing.layer_choices import names_of_weights
from .choosing.layouts import plan_layouts
from .choosing.width import fitting_plan
from .compile import imported_module
from .graph.nodes import Convolution, Node
from .graph.read import read_relax
from .importing.importer import Imported
from .judges import cost_unit, kernel_cost, winograd_for
from .kernels.base import Spec
from .kernels.tiles import Machine
from .lowering.steps import Choice, KernelPlan
from .machines.targets import Target, find_target
from .pipeline import prepare

__all__ = ["TIMED_BY", "NetworkTimes", "check_timed_by", "network_times"]

TIMED_BY = ("model", "cycles", "time")
"""Who tells the times: the formula of the cost model, the model of the core for emulated code, or this machine's clock."""


class NetworkTimes:
    """Time of one pass on one core, for the kernels that `compile` would choose by the cost model.

    What has no kernel of ours is not counted, with zeros and without.
    """

    def __init__(self, imported: Imported, target: Target, cost: Costs | None = None, unit: str = "cycles") -> None:
        """`cost` is asked once for every kernel, in `unit`; None for the cost model itself."""
        self._imported, self._weights, self._target = imported.module, imported.weights, target
        self._cost, self._unit = cost, unit
        self._known: dict[Spec, float] = {}

    def __call__(self, masks: Mapping[str, Tensor]) -> NetworkTime:
        """With zeros where `masks` are False, by the name of the weight."""
        graph = read_relax(self._imported)
        names = names_of_weights(graph, self._weights)
        for node, name in names.items():
            if name in masks:
                _mask(node.detail_as(Convolution), masks[name])
        machine, winograd = self._target.machine, winograd_for(self._target)
        prepare(graph, machine)
        plan, choice = plan_layouts(fitting_plan(graph, machine, winograd), winograd, AnalyticCost(machine))
        return self._time(plan, choice, names)

    def _time(self, plan: KernelPlan, choice: Choice, names: Mapping[Node, str]) -> NetworkTime:
        specs = [step.spec if step.layer is None else step.layer.chosen(choice) for step in plan.kernels]
        prices, layers = self._prices(specs, plan.machine), dict[str, float]()
        for step, spec in zip(plan.kernels, specs, strict=True):
            if step.layer is not None and step.node in names:
                name = names[step.node]
                layers[name] = layers.get(name, 0.0) + prices[spec]
        return NetworkTime(sum(prices[spec] for spec in specs), layers, self._unit)

    def _prices(self, specs: Sequence[Spec], machine: Machine) -> Mapping[Spec, float]:
        if self._cost is None:
            return {spec: spec.cycles(machine) for spec in specs}
        new = [spec for spec in dict.fromkeys(specs) if spec not in self._known]
        if new:
            found = self._cost([[spec] for spec in new])
            self._known.update(zip(new, (row[0] for row in found), strict=True))
        return self._known


def network_times(
    module: fx.GraphModule, inputs: tuple[Any, ...], target: str | Target, timed_by: str = "model"
) -> NetworkTimes:
    """For a captured module, called with `inputs`. `module` names weights as pruning does: it must be canonical.

    Args:
        timed_by: one of `TIMED_BY`.

    Raises:
        CaptureError: it cannot be compiled.
        InputError: there is no such target, or nobody who could tell its times so.
    """
    found = find_target(target)
    check_timed_by(found, timed_by)
    imported = imported_module(module, inputs)
    if timed_by == "model":
        return NetworkTimes(imported, found)
    cost, _ = kernel_cost(timed_by, found, tvm.target.Target(found.llvm()), 1, None)
    return NetworkTimes(imported, found, cost, cost_unit(timed_by, found, None))


def check_timed_by(target: Target, timed_by: str) -> None:
    """Raises InputError for who is none, or cannot tell the times of the target."""
    if timed_by not in TIMED_BY:
        raise InputError(f"times are told by {', '.join(TIMED_BY)}, not by '{timed_by}'; choose one of them")
    if timed_by == "time" and not target.runs_here:
        raise InputError(
            f"kernels for '{target.name}' do not run on this machine, so that they cannot be timed; choose cycles or model"
        )


def _mask(convolution: Convolution, mask: Tensor) -> None:
    weights = convolution.weights
    kept = convolution.arranged(mask.cpu().numpy())
    convolution.weights = replace(weights, kernel=weights.kernel * kept)
