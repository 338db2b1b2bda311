"""From Relax as it was imported to Relax with scheduled kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tvm
from tvm import IRModule, relax

from ..frontend.base.dump import reached
from .choosing.cache import ChoiceCache
from .choosing.choice import Winograd
from .choosing.cost import Costs
from .choosing.general_code import GeneralCode, general_code
from .choosing.layer_choices import Figures, LayerChoice, layer_choices, names_of_weights
from .choosing.layouts import plan_layouts
from .choosing.width import fitting_plan
from .graph.code_types import move_codes
from .graph.fold import fold_channels, fold_margins
from .graph.nodes import Array, Graph
from .graph.precision import assign_types, narrow
from .graph.read import read_relax
from .graph.sharing import share_weights
from .graph.text import fused_text, graph_text
from .importing.origins import Origin
from .kernels.generic import schedule_foreign
from .kernels.tiles import Machine
from .legalizations import LEGALIZATIONS
from .lowering.emit import emit_module
from .lowering.plan import make_plan
from .lowering.text import plan_text
from .machines.threads import on_threads

__all__ = ["Asked", "Scheduled", "prepare", "scheduled_module"]


@dataclass(frozen=True, eq=False)
class Asked:
    """How layers are to be computed.

    Attributes:
        winograd, cost, cache: decide about kernels, as in `choice.choose`.
        dtype: what layers of float32 are computed in.
    """

    winograd: Winograd = "off"
    cost: Costs | None = None
    cache: ChoiceCache | None = None
    dtype: str = "float32"


@dataclass(frozen=True, eq=False)
class Scheduled:
    """Relax with scheduled kernels.

    Attributes:
        foreign: operators, by TVM's names, that have no kernel of ours.
        layers: what was chosen for each.
        general: which operators without a kernel of ours take which part of the time, by a model.
    """

    module: IRModule
    foreign: tuple[str, ...]
    layers: tuple[LayerChoice, ...]
    general: tuple[GeneralCode, ...] = ()


def scheduled_module(
    imported: IRModule,
    machine: Machine,
    target: tvm.target.Target,
    asked: Asked | None = None,
    *,
    tune: Callable[[IRModule], IRModule] | None = None,
    weights: Mapping[str, Array] | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> Scheduled:
    """The whole pipeline: read, fold, give types, plan, choose, emit, schedule; what is foreign goes TVM's way with our
    schedule, and is named.

    `tune` may schedule foreign kernels before we do. `weights` are the model's by name, for who asks which layer is which, and
    `origins` where its operators are called.
    """
    asked = asked or Asked()
    graph = read_relax(imported)
    reached("read", graph, graph_text)
    names = names_of_weights(graph, weights or {})
    prepare(graph, machine, asked.dtype)
    plan = make_plan(graph, machine) if asked.cost is None else fitting_plan(graph, machine, asked.winograd)
    figures: Figures = {}
    blocks = plan
    plan, chosen = plan_layouts(blocks, asked.winograd, asked.cost, asked.cache, figures)
    reached("planned", plan, plan_text)
    layers = layer_choices(plan, chosen, blocks, figures, names)
    module = emit_module(plan, chosen)
    module = _lowered(module, target)
    foreign = tuple(node.name.removeprefix("relax.") for node in graph.nodes if node.op == "foreign")
    tuned = module if tune is None else tune(module)
    general = general_code(plan, chosen, origins or {})
    return Scheduled(schedule_foreign(tuned, plan.machine.lanes()), foreign, layers, general)


def _lowered(module: IRModule, target: tvm.target.Target) -> IRModule:
    """What is foreign as kernels of TVM's. Of constants they run here and now, in parallel where there are threads for it; that
    none are made keeps a process from waiting for them when it ends: idle ones look for work 300,000 times before they sleep.
    """
    passes = tvm.transform.Sequential(
        [
            relax.transform.DecomposeOpsForInference(),
            relax.transform.LegalizeOps(dict(LEGALIZATIONS)),
            relax.transform.AnnotateTIROpPattern(),
            relax.transform.FoldConstant(),
            relax.transform.FuseOps(),
            relax.transform.FuseTIR(),
        ]
    )
    with target:
        return on_threads(1, lambda: passes(module))


def prepare(graph: Graph, machine: Machine, dtype: str = "float32") -> None:
    """Folds a graph that was read, and gives its values types: what is done before kernels are planned."""
    fold_channels(graph)
    fold_margins(graph)
    share_weights(graph)
    reached("folded", graph, graph_text)
    narrow(graph, dtype)
    assign_types(graph)
    if machine.codes == "uint8":
        move_codes(graph)
    reached("fused", graph, fused_text)
