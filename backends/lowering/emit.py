"""Relax of a plan: a ``main`` that calls our kernels, and TVM's operators where the plan keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import IRModule, relax, tirx

from ..graph.nodes import Array, Node, Reference
from ..kernels.alternatives import Candidate
from ..kernels.convolution import ConvolutionSpec
from ..kernels.depthwise import DepthwiseSpec
from ..kernels.winograd import WinogradSpec
from .layout import pack_convolution, pack_depthwise, pack_winograd
from .steps import Kept, Placed, Plan, Value

__all__ = ["Choose", "chosen_spec", "emit_module"]

Choose = Callable[[ConvolutionSpec], Candidate]
"""How a convolution is computed, given its default specification."""


def emit_module(plan: Plan, choose: Choose = Candidate) -> IRModule:
    """A module whose ``main`` carries the plan out, every layer as `choose` says."""
    return _Emitter(plan, choose).module()


def chosen_spec(placed: Placed, choose: Choose) -> Any:
    """The specification of the kernel that is called."""
    return choose(placed.spec).spec if placed.has_alternatives else placed.spec


class _Emitter:
    def __init__(self, plan: Plan, choose: Choose) -> None:
        self.plan = plan
        self.choose = choose
        self.builder = relax.BlockBuilder()
        self.values: dict[Placed | Kept | Node, Any] = {}
        self.kernels: dict[Any, Any] = {}

    def module(self) -> IRModule:
        graph = self.plan.graph
        parameters = [relax.Var(node.name, relax.TensorType(list(node.shape), node.dtype)) for node in graph.inputs]
        self.values.update(zip(graph.inputs, parameters, strict=True))
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for step in self.plan.steps:
                    self.values[step] = self._call(step) if isinstance(step, Placed) else self._kept(step)
                results = [self._value(value) for value in self.plan.results]
                output = self.builder.emit_output(relax.Tuple(results) if graph.returns_tuple else results[0])
            self.builder.emit_func_output(output)
        return self.builder.get()

    def _value(self, value: Value) -> Any:
        """The Relax expression of a value."""
        if isinstance(value, np.ndarray):
            return relax.const(value)
        if value not in self.values and isinstance(value, Node):
            self.values[value] = relax.const(value.detail.astype(value.dtype), value.dtype)
        return self.values[value]

    def _call(self, placed: Placed) -> Any:
        """A call of the kernel for a specification, which is built once however often it occurs.

        A workspace is results that nobody reads, so that Relax plans their memory with all the rest.
        """
        spec = chosen_spec(placed, self.choose)
        constants = placed.tables if placed.layer is None else _packed(spec, *placed.layer)
        arguments = [self._value(value) for value in (*placed.sources, *constants, *placed.leaves)]
        kernel = self._kernel(spec)
        workspace = spec.workspace if isinstance(spec, WinogradSpec) else ()
        result = relax.TensorType(list(placed.shape), "float32")
        if not workspace:
            return self.builder.emit(relax.call_tir(kernel, arguments, result))
        results = [result, *(relax.TensorType([size], "float32") for size in workspace)]
        every = self.builder.emit(relax.call_tir(kernel, arguments, results))
        return self.builder.emit(relax.TupleGetItem(every, 0))

    def _kernel(self, spec: Any) -> Any:
        if spec not in self.kernels:
            name = f"{spec.family}_{sum(1 for known in self.kernels if known.family == spec.family)}"
            self.kernels[spec] = self.builder.add_func(spec.function(name), name)
        return self.kernels[spec]

    def _kept(self, kept: Kept) -> Any:
        node, inputs = kept.node, [self._value(value) for value in kept.inputs]
        if node.op == "item":
            return self.builder.emit(relax.TupleGetItem(inputs[0], node.detail))
        if node.op in ("reshape", "flatten"):
            return self.builder.emit(relax.op.reshape(inputs[0], node.shape))
        call = node.detail.call
        arguments = [self._expression(argument, inputs, node.name) for argument in node.detail.arguments]
        return self.builder.emit(relax.Call(call.op, arguments, call.attrs, call.ty_args))

    def _expression(self, argument: Any, inputs: list[Any], name: str) -> Any:
        """An argument of a foreign call."""
        if isinstance(argument, tuple):
            return relax.Tuple([self._expression(field, inputs, name) for field in argument])
        if isinstance(argument, tirx.PrimFunc):
            return self.builder.add_func(argument, name)
        return inputs[argument.index] if isinstance(argument, Reference) else argument


def _packed(spec: Any, *layer: Any) -> tuple[Array, ...]:
    """What a layer's kernel reads of it."""
    convolution, slots = layer
    if isinstance(spec, WinogradSpec):
        return pack_winograd(spec, convolution.weights, slots)
    if isinstance(spec, DepthwiseSpec):
        return pack_depthwise(spec, convolution.weights, slots)
    return pack_convolution(spec, convolution, slots)
