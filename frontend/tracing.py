"""A model is exported, and what of it follows ``train()`` and ``eval()`` is found out."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from .exporting import export_program, exported
from .graph_module import CapturedModule
from .inlining import inline_regions
from .modes import DIFFERENCES, mark_modes, mark_modes_of_a_program, note_differences
from .training_reads import Reads, reads_of_training

__all__ = ["Trace", "in_both_modes", "plain_graph"]


class Trace:
    """Exports of one model; the last of them is the one that counts."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._reads: Reads = {}
        self._call: tuple[Any, ...] = ()

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any = None) -> ExportedProgram:
        """The model in inference. Raises CaptureError."""
        self._call = (args, kwargs, dynamic_shapes)
        with reads_of_training() as self._reads:
            return export_program(self.model, args, dynamic_shapes, kwargs)

    def attempt(self, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
        """The same with torch's own errors."""
        self._call = (args, kwargs, dynamic_shapes)
        with reads_of_training() as self._reads:
            return exported(self.model, args, kwargs, dynamic_shapes)

    def mark(self, graph: fx.Graph) -> tuple[str, ...]:
        """Marks which calls of the last program's graph follow the mode; returns what else the model does in training."""
        model = self.model
        if isinstance(model, fx.GraphModule) and not any(node.op == "call_module" for node in model.graph.nodes):
            return mark_modes_of_a_program(graph)  # Operators only: it has the modes that its own records tell.
        return mark_modes(graph, model, self._reads, self._in_training)

    def _in_training(self) -> fx.Graph:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args, kwargs, dynamic_shapes = self._call
            return plain_graph(exported(self.model, args, kwargs, dynamic_shapes, training=True)).graph


def in_both_modes(module: CapturedModule, trace: Trace) -> CapturedModule:
    """`module`, captured in inference, with what follows the mode marked; in place."""
    differences = trace.mark(module.graph)
    note_differences(module.graph, differences)
    module.meta[DIFFERENCES] = differences
    module.recompile()
    return module.eval()


def plain_graph(program: ExportedProgram) -> fx.GraphModule:
    """The program's graph with operators only."""
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    for node in list(module.graph.nodes):
        if node.op == "call_module" and not node.users:
            module.graph.erase_node(node)  # Shape guards; `meta["input_sizes"]` has them.
        elif node.target is torch.ops.aten._assert_tensor_metadata.default:
            module.graph.erase_node(
                node
            )  # A conversion's operand is of the example's type; of another after `double()`.
    inline_regions(module)
    return module
