"""Reads an imported Relax function into the backend's graph.

An operator without a rule, or with options a rule does not take, stays what it is: a ``foreign`` node
that TVM legalises and `kernels.generic` schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import IRModule, relax

from .code_rules import CODE_RULES
from .element_rules import ELEMENTS
from .layer_rules import LAYERS
from .nodes import Foreign, Graph, Node, Reference, constant
from .relax_calls import Rule, operator_of, shape_and_dtype
from .shape_rules import SHAPES

__all__ = ["read_relax"]


def read_relax(module: IRModule) -> Graph:
    """The graph of ``main`` in `module`, whose parameters must be constants."""
    function = module["main"]
    values: dict[Any, Any] = dict(module.functions_items())
    inputs = []
    for parameter in function.params:
        shape, dtype = shape_and_dtype(parameter)
        node = Node("input", [], shape, dtype, name=parameter.name)
        values[parameter] = node
        inputs.append(node)
    for block in function.body.blocks:
        for binding in block.bindings:
            values[binding.var] = _read(binding.value, values, binding.var)
    result = _argument(function.body.body, values)
    returns_tuple = isinstance(result, tuple)
    outputs = list(result) if isinstance(result, tuple) else [result]
    graph = Graph([], inputs, outputs, returns_tuple)
    graph.refresh()
    return graph


def _read(value: Any, values: dict[Any, Any], var: Any) -> Any:
    if not isinstance(value, relax.Call):
        return _argument(value, values)
    arguments = [_argument(argument, values) for argument in value.args]
    rule = RULES.get(operator_of(value))
    result = rule(value, arguments) if rule else None
    return result if result is not None else _foreign(value, arguments, var)


def _argument(value: Any, values: dict[Any, Any]) -> Any:
    """The node, tuple of nodes, kernel, or untouched Relax expression (a shape, a number) that `value` stands for."""
    if isinstance(value, relax.Tuple):
        return tuple(_argument(field, values) for field in value.fields)
    if isinstance(value, relax.TupleGetItem):
        return _item(_argument(value.tuple_value, values), value.index, value)
    if isinstance(value, relax.Var | tvm.ir.GlobalVar):
        return values[value]
    if isinstance(value, tvm.ir.GenericConst):
        return constant(value.value.numpy())
    return value


def _item(source: Any, index: int, value: Any) -> Node:
    if isinstance(source, tuple):
        node: Node = source[index]
        return node
    shape, dtype = shape_and_dtype(value)
    return Node("item", [source], shape, dtype, index)


def _foreign(call: Any, arguments: Sequence[Any], var: Any) -> Node:
    """Keeps the call; in its arguments nodes become references into `inputs`, which passes may change."""
    shape, dtype = shape_and_dtype(var)
    inputs: list[Node] = []

    def referenced(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(referenced(field) for field in argument)
        if isinstance(argument, Node):
            inputs.append(argument)
            return Reference(len(inputs) - 1)
        return argument

    detail = Foreign(call, tuple(referenced(argument) for argument in arguments))
    kernel = call.args[0].name_hint if operator_of(call) == "relax.call_tir" else operator_of(call)
    return Node("foreign", inputs, shape, dtype, detail, kernel, str(var.name))


RULES: dict[str, Rule] = {**LAYERS, **ELEMENTS, **SHAPES, **CODE_RULES}
"""Operators by name. `relax.nn.dropout` does not occur: export removes it in eval mode."""
