"""From a torch module to a Relax module of scheduled kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import tvm
from torch import nn
from tvm import IRModule, relax
from tvm.relax.frontend.torch import from_exported_program

from .choice import Memory, Winograd, choose
from .converters import CONVERTERS
from .cost import Cost
from .decompositions import importable
from .emit import emit_module
from .fold import fold_channels, fold_margins
from .indexing import count_from_start
from .read import read_relax
from .schedules.generic import schedule_foreign
from .schedules.tiles import Machine
from .survey import survey
from .width import fitting_width

__all__ = ["import_module", "scheduled_module"]


def import_module(module: nn.Module, example_inputs: tuple[Any, ...]) -> tuple[IRModule, bool]:
    """`module` as Relax with its parameters as constants, and whether it returns several values.

    The Relax function always returns a tuple; structure deeper than that is flattened in export's order.
    """
    exported = torch.export.export(module, example_inputs, strict=False)
    returns_one = exported.call_spec.out_spec is not None and exported.call_spec.out_spec.is_leaf()
    decomposed = exported.run_decompositions(importable())
    count_from_start(decomposed)
    relax_module = from_exported_program(
        decomposed, keep_params_as_input=False, custom_convert_map=dict(CONVERTERS), run_ep_decomposition=False
    )
    return relax_module, not returns_one


def scheduled_module(
    imported: IRModule,
    machine: Machine,
    target: tvm.target.Target,
    *,
    winograd: Winograd = "off",
    cost: Cost | None = None,
    memory: Memory | None = None,
    tune: Callable[[IRModule], IRModule] | None = None,
) -> tuple[IRModule, tuple[str, ...]]:
    """The whole pipeline: read, fold, fuse, choose, lay out, schedule; what is foreign goes TVM's way with our
    schedule, and is named.

    `winograd`, `cost` and `memory` decide how convolutions are computed, as in `choice.choose`. `tune` may schedule
    foreign kernels before we do.
    """
    graph = read_relax(imported)
    fold_channels(graph)
    fold_margins(graph)
    if cost is not None:
        machine = fitting_width(graph, machine, winograd)
    chosen = choose(survey(graph, machine), machine, winograd, cost, memory)
    module = emit_module(graph, machine, chosen.__getitem__)
    with target:
        module = tvm.transform.Sequential(
            [
                relax.transform.DecomposeOpsForInference(),
                relax.transform.LegalizeOps(),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
            ]
        )(module)
    foreign = tuple(node.name.removeprefix("relax.") for node in graph.nodes if node.op == "foreign")
    tuned = module if tune is None else tune(module)
    return schedule_foreign(tuned, machine.lanes), foreign
