"""Operators beside each other in a graph, each with channels to lose on one axis of one operand, and a reader that leaves out
some of every axis of its results.

All other operands are stored, whole, and of the same shapes as before. So where a rule forgets that two operands share
an axis, one of them shrinks and the other does not, and the certificate of the compaction says so.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from reconvene.frontend.graph_module import CapturedModule, captured_module
from reconvene.passes.rules import rule_for
from reconvene.passes.rules.elementwise import Elementwise
from reconvene.passes.stored import place_tensor
from reconvene.passes.values import is_tensor, operator_name

__all__ = ["Call", "Question", "calls_of", "probe", "probes_of"]

Tensor = torch.Tensor
A = torch.ops.aten

_FEATURES = 3


@dataclass(frozen=True, eq=False)
class Call:
    """A call with example values of its operands and its results."""

    node: fx.Node
    operands: tuple[fx.Node, ...]
    values: dict[fx.Node, Tensor]
    results: tuple[Any, ...]

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that differ in numbers only."""
        shapes = tuple(tuple(self.values[node].shape) for node in self.operands)
        settings = tuple(arg for arg in self.node.args if isinstance(arg, bool | int | str | list | tuple | None))
        alike = type(rule_for(operator_name(self.node))) is Elementwise  # One rule, which does not ask for the name.
        name = "" if alike else str(self.node.target)
        return (name, shapes, "" if alike else str(settings), len(self.node.kwargs))


Question = tuple[Call, int, int]
"""An operand of a call by its place, and an axis of it."""


class _Values(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)


def calls_of(module: fx.GraphModule, inputs: tuple[Any, ...], name: str) -> Iterator[Call]:
    """All calls of an operator in a captured module, with the values they have on `inputs`."""
    interpreter = _Values(module)
    with torch.no_grad():
        interpreter.run(*inputs, enable_io_processing=False)
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_name(node) == name:
            operands = tuple(operand for operand in node.all_input_nodes if is_tensor(operand))
            result = interpreter.env[node]
            results = tuple(result) if isinstance(result, tuple | list) else (result,)
            yield Call(node, operands, {operand: interpreter.env[operand] for operand in operands}, results)


def probes_of(call: Call, *, computed: bool = False) -> Iterator[tuple[int, int]]:
    """Operands (only `computed` ones if so) and axes of them: everything that `probe` can be asked."""
    for place, operand in enumerate(call.operands):
        value = call.values[operand]
        if (value.is_floating_point() or value.dtype is torch.bool) and not (computed and operand.op == "get_attr"):
            for axis, size in enumerate(value.shape):
                if size > 1:
                    yield place, axis


def probe(questions: Sequence[Question]) -> tuple[CapturedModule, tuple[Any, ...], dict[str, Tensor]]:
    """One graph, inputs for it, and masks: every other channel is not made, and a third of every result is not read."""
    maker = _Maker()
    inputs: list[Tensor] = []
    masks: dict[str, Tensor] = {}
    sums: list[fx.Node] = []
    for number, question in enumerate(questions):
        maker.within = f"question_{number}"
        given, made, size = _made(maker, question)
        inputs.append(given)
        makes = torch.arange(size) % 2 == 0
        masks[f"{maker.within}.make.weight"] = makes[:, None].expand(-1, _FEATURES).clone()
        masks[f"{maker.within}.make.bias"] = makes
        sums += _read(maker, question, made)
    return maker.finished(tuple(sums), tuple(inputs)), tuple(inputs), masks


def _made(maker: _Maker, question: Question) -> tuple[Tensor, fx.Node, int]:
    """An input, the operand that a layer makes of it, and how many channels the layer has."""
    call, place, axis = question
    value = call.values[call.operands[place]]
    size = value.shape[axis]
    given = maker.normal(*value.movedim(axis, -1).shape[:-1], _FEATURES)
    made = maker.call(
        A.linear.default,
        maker.input(given),
        maker.stored("make.weight", maker.normal(size, _FEATURES)),
        maker.stored("make.bias", maker.normal(size)),
    )
    moved = maker.call(A.contiguous.default, maker.call(A.movedim.int, made, -1, axis))
    return given, _in_domain(maker, moved, value), size


def _read(maker: _Maker, question: Question, made: fx.Node) -> list[fx.Node]:
    """Weighted sums of all results of the call, on `made` and stored operands."""
    call, place, _ = question
    standing = {
        operand: made if position == place else maker.stored(f"operand_{position}", call.values[operand])
        for position, operand in enumerate(call.operands)
    }
    args, kwargs = fx.map_arg((call.node.args, dict(call.node.kwargs)), standing.__getitem__)
    result = maker.call(call.node.target, *args, **kwargs)
    several = is_several(maker.values[result])
    parts = [maker.call(operator.getitem, result, place) for place in range(len(call.results))] if several else [result]
    sums = []
    for number, part in enumerate(parts):
        shape = maker.values[part].shape
        weights = maker.normal(*shape)
        for along, width in enumerate(shape):
            if width > 1:
                weights.index_fill_(along, torch.arange(1, width, 3), 0.0)
        if not maker.values[part].is_floating_point():
            part = maker.call(A.to.dtype, part, torch.float64)
        weighted = maker.call(A.mul.Tensor, part, maker.stored(f"reads_{number}", weights))
        sums.append(maker.call(A.sum.default, weighted))
    return sums


def _in_domain(maker: _Maker, made: fx.Node, value: Tensor) -> fx.Node:
    """`made`, brought into the range of an operand's example values where the operator may need that."""
    if value.dtype is torch.bool:
        return maker.call(A.gt.Scalar, made, 0.1)
    low, high = float(value.min()), float(value.max())
    if low > 0:
        return maker.call(A.add.Tensor, maker.call(A.mul.Tensor, maker.call(A.sigmoid.default, made), high - low), low)
    if max(-low, high) < 1:
        return maker.call(A.mul.Tensor, maker.call(A.tanh.default, made), max(-low, high))
    return made


def is_several(value: Any) -> bool:
    return isinstance(value, tuple | list)


class _Maker:
    """A captured graph, made call by call on example values. What it stores is named within `within`."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.within = ""
        self._generator = torch.Generator().manual_seed(0)
        self.values: dict[fx.Node, Any] = {}
        self._tensors: dict[str, Tensor] = {}

    def normal(self, *sizes: int) -> Tensor:
        return torch.randn(sizes, generator=self._generator, dtype=torch.float64)

    def input(self, value: Tensor) -> fx.Node:
        return self._known(self.graph.placeholder(f"given_to_{self.within}"), value)

    def stored(self, name: str, value: Tensor) -> fx.Node:
        name = f"{self.within}.{name}"
        own = value.detach().clone()
        floating = own.is_floating_point()
        self._tensors[name] = torch.nn.Parameter(own) if floating else own
        return self._known(self.graph.get_attr(name), own)

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        node = self.graph.call_function(target, args, kwargs)
        with torch.no_grad():
            values = fx.map_arg((args, kwargs), self.values.__getitem__)
            return self._known(node, target(*values[0], **values[1]))

    def finished(self, out: tuple[fx.Node, ...], inputs: tuple[Any, ...]) -> CapturedModule:
        self.graph.output(out)
        root = torch.nn.Module()
        for name, tensor in self._tensors.items():
            place_tensor(root, name, tensor)
        return captured_module(root, self.graph, {"example_inputs": inputs, "dynamic_shapes": None})

    def _known(self, node: fx.Node, value: Any) -> fx.Node:
        self.values[node] = value
        node.meta["val"] = _without_data(value)
        return node


def _without_data(value: Any) -> Any:
    if is_several(value):
        return [_without_data(item) for item in value]
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
