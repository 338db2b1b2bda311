"""A program as a module: as an nn.Module to be captured, or directly as a captured graph, which takes a tenth of the time."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from reconvene.frontend.capture import capture
from reconvene.frontend.graph_module import CapturedModule, captured_module

from .program import Program, Ref, evaluate, input_values, mapped, operator_of, stored_values

__all__ = ["ProgramModule", "built", "captured"]

Tensor = torch.Tensor


class ProgramModule(nn.Module):
    """Runs a program's calls in order."""

    def __init__(self, program: Program, masks: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self._program = program
        kinds = {stored.name: stored.kind for stored in program.stored}
        for name, value in stored_values(program).items():
            if masks and name in masks:
                value[~masks[name]] = 0.0
            if kinds[name] == "normal":
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, *inputs: Tensor) -> tuple[Any, ...]:
        stored = {stored.name: getattr(self, stored.name) for stored in self._program.stored}
        return evaluate(self._program, inputs, stored)


def captured(program: Program) -> CapturedModule:
    """Through torch.export, as a user's model comes in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return capture(ProgramModule(program).eval(), input_values(program, 0))


def built(program: Program) -> CapturedModule:
    """The graph made directly in torch.export's vocabulary, with the shapes that a capture would record.

    The shapes come from running the program: running it on tensors without data takes ten times as long.
    """
    module = ProgramModule(program)
    example = input_values(program, 0)
    results: list[Any] = []
    with torch.no_grad():
        evaluate(program, example, stored_values(program), lambda value: results.append(value) or value)
    graph, mode = fx.Graph(), FakeTensorMode()
    nodes: dict[Ref, fx.Node] = {}

    def fake(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [fake(item) for item in value]
        with mode:
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)

    def add(name: str, node: fx.Node, value: Any) -> None:
        node.meta["val"] = fake(value)
        nodes[Ref(name)] = node

    def node_of(ref: Ref) -> fx.Node:
        if ref not in nodes:
            whole = nodes[Ref(ref.name)]
            item = graph.call_function(operator.getitem, (whole, ref.item))
            item.meta["val"] = whole.meta["val"][ref.item]
            nodes[ref] = item
        return nodes[ref]

    for given, value in zip(program.inputs, example, strict=True):
        add(given.name, graph.placeholder(given.name), value)
    for stored in program.stored:
        add(stored.name, graph.get_attr(stored.name), getattr(module, stored.name))
    for call, value in zip(program.calls, results, strict=True):
        keywords = {key: mapped(argument, node_of) for key, argument in call.keywords}
        node = graph.call_function(operator_of(call.operator), tuple(mapped(call.args, node_of)), keywords)
        add(call.name, node, value)
    graph.output((*(node_of(ref) for ref in program.outputs), *program.extra))
    return captured_module(module, graph, {"example_inputs": example, "dynamic_shapes": None})
