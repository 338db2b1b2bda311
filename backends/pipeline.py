"""From Relax as it was imported to Relax with scheduled kernels."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import IRModule, relax

from ..frontend.base.dump import reached
from .choosing.cache import ChoiceCache
from .choosing.choice import Winograd
from .choosing.cost import Costs
from .choosing.layouts import plan_layouts
from .choosing.width import fitting_plan
from .graph.fold import fold_channels, fold_margins
from .graph.precision import assign_types
from .graph.read import read_relax
from .graph.text import fused_text, graph_text
from .kernels.generic import schedule_foreign
from .kernels.tiles import Machine
from .legalizations import LEGALIZATIONS
from .lowering.emit import emit_module
from .lowering.plan import make_plan
from .lowering.text import plan_text

__all__ = ["scheduled_module"]


def scheduled_module(
    imported: IRModule,
    machine: Machine,
    target: tvm.target.Target,
    *,
    winograd: Winograd = "off",
    cost: Costs | None = None,
    cache: ChoiceCache | None = None,
    tune: Callable[[IRModule], IRModule] | None = None,
) -> tuple[IRModule, tuple[str, ...]]:
    """The whole pipeline: read, fold, give types, plan, choose, emit, schedule; what is foreign goes TVM's way with our
    schedule, and is named.

    `winograd`, `cost` and `cache` decide how convolutions are computed, as in `choice.choose`. `tune` may schedule
    foreign kernels before we do.
    """
    graph = read_relax(imported)
    reached("read", graph, graph_text)
    fold_channels(graph)
    fold_margins(graph)
    reached("folded", graph, graph_text)
    assign_types(graph)
    reached("fused", graph, fused_text)
    plan = make_plan(graph, machine) if cost is None else fitting_plan(graph, machine, winograd)
    plan, chosen = plan_layouts(plan, winograd, cost, cache)
    reached("planned", plan, plan_text)
    module = emit_module(plan, chosen)
    with target:
        module = tvm.transform.Sequential(
            [
                relax.transform.DecomposeOpsForInference(),
                relax.transform.LegalizeOps(dict(LEGALIZATIONS)),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
            ]
        )(module)
    foreign = tuple(node.name.removeprefix("relax.") for node in graph.nodes if node.op == "foreign")
    tuned = module if tune is None else tune(module)
    return schedule_foreign(tuned, plan.machine.lanes()), foreign
